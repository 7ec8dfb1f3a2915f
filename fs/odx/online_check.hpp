// odx check of a store that is in use: by the daemon that has it.
#pragma once

#include <optional>
#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "store/check/check.hpp"

namespace odx::cli {

// A descriptor of the mount, if `path` is a mount point of odxfs, or on one and not itself a store.
[[nodiscard]] std::optional<Fd> open_if_mounted(const std::string& path);

// Where the store in the directory `path` is mounted, if it is.
[[nodiscard]] std::optional<std::string> mount_point_of(const std::string& path);

// As check_store(), for the store behind `mount`. EBUSY while another check runs, unless it is to
// be cancelled. SIGINT and the like cancel this one: ECANCELED.
Result<CheckReport> check_mounted(int mount, const CheckOptions& options, bool cancel_other);

}  // namespace odx::cli
