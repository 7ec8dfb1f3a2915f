// POSIX access control lists as the kernel stores them in xattrs (version 2). The kernel checks
// permissions by them; keeping them and the mode in step is the filesystem's part.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace odx::daemon {

inline constexpr std::string_view kAccessAcl = "system.posix_acl_access";
inline constexpr std::string_view kDefaultAcl = "system.posix_acl_default";

class Acl {
 public:
  // Nothing if it is not a well-formed list of the tags that have to be there.
  static std::optional<Acl> decode(std::string_view xattr);
  [[nodiscard]] std::string encode() const;

  // True if the mode bits say it all.
  [[nodiscard]] bool is_trivial() const;
  // The permission bits that go with it.
  [[nodiscard]] std::uint32_t permissions() const;

  // The list of something new in a directory that has this list as its default: limited by the
  // mode asked for.
  [[nodiscard]] Acl inherited(std::uint32_t mode) const;
  // The list after chmod.
  [[nodiscard]] Acl with_permissions(std::uint32_t mode) const;

 private:
  struct Entry {
    std::uint16_t tag = 0;
    std::uint16_t permissions = 0;
    std::uint32_t id = 0;
  };
  [[nodiscard]] const Entry* find(std::uint16_t tag) const;
  [[nodiscard]] Entry* find(std::uint16_t tag);
  // What the mode's group bits stand for: the mask if there is one.
  [[nodiscard]] std::uint16_t group_tag() const;

  std::vector<Entry> entries_;
};

}  // namespace odx::daemon
