// The superblock's 4 KiB image and its two files. FORMAT.md has the layout.
//
// A write replaces the older copy in place, so a torn write can only damage the copy that nobody
// needs; the newest copy that passes its checksum counts. The checksum's place is the same in all
// format versions, so that a store from the future is told from a damaged one.
#include "store/superblock.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <optional>

#include "base/codec.hpp"
#include "base/crc32c.hpp"
#include "base/fd.hpp"

namespace odx {

namespace {

constexpr std::string_view kMagic = "ODXFS\r\n\x1a";
constexpr std::size_t kImageBytes = 4096;
constexpr std::size_t kCrcAt = kImageBytes - 4;
constexpr std::size_t kLabelField = kMaxLabelBytes + 1;

std::string path_of(const std::string& dir, std::uint64_t copy) {
  return fmt::format("{}/SUPER.{}", dir, copy);
}

Result<void> validate(const Superblock& super) {
  if (super.generation == 0) {
    return fail(EINVAL, "superblock generation 0");
  }
  if (!std::has_single_bit(super.sector_bytes) || super.sector_bytes < 512 ||
      super.sector_bytes > 4096) {
    return fail(EINVAL,
                fmt::format("sector size {} is not 512, 1024, 2048 or 4096", super.sector_bytes));
  }
  if (super.label.size() > kMaxLabelBytes || super.label.find('\0') != std::string::npos) {
    return fail(EINVAL, fmt::format("a label has at most {} bytes", kMaxLabelBytes));
  }
  if (super.limit_blocks > kMaxFileBytes / kBlockBytes) {
    return fail(EINVAL, fmt::format("limit of {} blocks is too large", super.limit_blocks));
  }
  return {};
}

std::string encode(const Superblock& super) {
  std::string out;
  out.reserve(kImageBytes);
  out.append(kMagic);
  put_le<std::uint32_t>(out, kFormatVersion);
  put_le<std::uint32_t>(out, super.sector_bytes);
  put_le(out, super.generation);
  out.append(reinterpret_cast<const char*>(super.uuid.data()), super.uuid.size());
  put_le(out, super.compat);
  put_le(out, super.ro_compat);
  put_le(out, super.incompat);
  put_le(out, super.limit_blocks);
  std::string label = super.label;
  label.resize(kLabelField);
  out.append(label);
  out.resize(kCrcAt);
  put_le(out, crc32c(out));
  return out;
}

// What one file says. A damaged copy is corruption, a version unknown here ENOTSUP.
Result<Superblock> decode(std::string_view image) {
  if (image.size() != kImageBytes || !image.starts_with(kMagic)) {
    return corrupt("not a superblock");
  }
  if (load_le<std::uint32_t>(image.data() + kCrcAt) != crc32c(image.substr(0, kCrcAt))) {
    return corrupt("superblock checksum mismatch");
  }
  Decoder in(image.substr(kMagic.size(), kCrcAt - kMagic.size()));
  const auto version = in.le<std::uint32_t>();
  Superblock super;
  super.sector_bytes = in.le<std::uint32_t>();
  super.generation = in.le<std::uint64_t>();
  if (version != kFormatVersion) {
    return fail(ENOTSUP, fmt::format("store format version {}; this build knows version {}",
                                     version, kFormatVersion));
  }
  const std::string_view uuid = in.bytes(super.uuid.size());
  std::copy(uuid.begin(), uuid.end(), super.uuid.begin());
  super.compat = in.le<std::uint64_t>();
  super.ro_compat = in.le<std::uint64_t>();
  super.incompat = in.le<std::uint64_t>();
  super.limit_blocks = in.le<std::uint64_t>();
  const std::string_view label = in.bytes(kLabelField);
  super.label = label.substr(0, std::min(label.find('\0'), kLabelField));
  if (super.incompat & ~kKnownIncompat) {
    return fail(ENOTSUP, fmt::format("unknown incompatible features {:#x}",
                                     super.incompat & ~kKnownIncompat));
  }
  if (auto valid = validate(super); !valid) {
    return corrupt(valid.error().detail());
  }
  return super;
}

// The file's bytes, one more than a superblock's at most; nullopt if there is no such file.
Result<std::optional<std::string>> read_image(const std::string& path) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!file.valid()) {
    if (errno == ENOENT) {
      return std::nullopt;
    }
    return fail(errno, path);
  }
  std::string image(kImageBytes + 1, '\0');
  std::size_t have = 0;
  while (have < image.size()) {
    const ssize_t n =
        ::pread(file.get(), image.data() + have, image.size() - have, static_cast<off_t>(have));
    if (n < 0) {
      if (errno == EINTR) {
        continue;
      }
      return fail(errno, path);
    }
    if (n == 0) {
      break;
    }
    have += static_cast<std::size_t>(n);
  }
  image.resize(have);
  return image;
}

std::uint64_t generation_in(std::string_view image) {
  return load_le<std::uint64_t>(image.data() + kMagic.size() + 8);
}

}  // namespace

std::string to_text(const Uuid& uuid) {
  std::string out;
  for (std::size_t i = 0; i < uuid.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) {
      out.push_back('-');
    }
    out.append(fmt::format("{:02x}", uuid[i]));
  }
  return out;
}

Result<Superblock> read_superblock(const std::string& store_dir) {
  // The newest copy decides, also if what it says is that this build may not read the store.
  std::uint64_t newest = 0;
  bool any_file = false;
  Result<Superblock> best = fail(ENOENT, store_dir + " is not an odxfs store");
  for (std::uint64_t copy = 0; copy < 2; ++copy) {
    const std::optional<std::string> image = ODX_TRY(read_image(path_of(store_dir, copy)));
    if (!image) {
      continue;
    }
    Result<Superblock> super = decode(*image);
    const bool damaged = !super && super.error().is_corruption();
    const std::uint64_t generation = damaged ? 0 : generation_in(*image);
    if (!any_file || generation > newest) {
      best = std::move(super);
      newest = generation;
    }
    any_file = true;
  }
  if (!best && any_file) {
    const Error& why = best.error();
    const std::string text = fmt::format("{}: {}", store_dir, why.detail());
    return why.is_corruption() ? corrupt(text) : fail(why.errno_value(), text);
  }
  return best;
}

Result<SuperblockCopies> read_superblock_copies(const std::string& store_dir) {
  SuperblockCopies copies;
  for (std::uint64_t i = 0; i < 2; ++i) {
    if (const std::optional<std::string> image = ODX_TRY(read_image(path_of(store_dir, i)))) {
      copies.copy[i] = decode(*image);
    }
  }
  return copies;
}

// Under a name of its own first: a copy is the old one or the new one at any moment, and one that is
// neither is damaged.
Result<void> write_superblock(const std::string& store_dir, const Superblock& super) {
  ODX_TRY(validate(super));
  const std::string image = encode(super);
  const std::string path = path_of(store_dir, super.generation % 2);
  const std::string unfinished = path + ".new";
  if (::unlink(unfinished.c_str()) != 0 && errno != ENOENT) {
    return fail(errno, unfinished);
  }
  Fd file(::open(unfinished.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file.valid()) {
    return fail(errno, unfinished);
  }
  const auto give_up = [&](int reason) {
    (void)::unlink(unfinished.c_str());
    return fail(reason, path);
  };
  for (std::size_t done = 0; done < image.size();) {
    const ssize_t n =
        ::pwrite(file.get(), image.data() + done, image.size() - done, static_cast<off_t>(done));
    if (n < 0 && errno != EINTR) {
      return give_up(errno);
    }
    done += n > 0 ? static_cast<std::size_t>(n) : 0;
  }
  if (::fsync(file.get()) != 0 || ::rename(unfinished.c_str(), path.c_str()) != 0) {
    return give_up(errno);
  }
  const Fd directory(::open(store_dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid() || ::fsync(directory.get()) != 0) {
    return fail(errno, store_dir);
  }
  return {};
}

}  // namespace odx
