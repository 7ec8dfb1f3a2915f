// For making images: what fails here is no finding, and ends the program.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include "base/result.hpp"

namespace odx::images {

[[noreturn]] inline void die(const std::string& why) {
  std::fprintf(stderr, "images: %s\n", why.c_str());
  std::exit(1);
}

template <class T>
T must(Result<T> result) {
  if (!result) {
    die(result.error().message());
  }
  if constexpr (!std::is_void_v<T>) {
    return std::move(*result);
  }
}

}  // namespace odx::images
