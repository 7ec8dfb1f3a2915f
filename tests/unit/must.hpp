// The value of a Result, or a failed test that says what went wrong and where.
#pragma once

#include <catch2/catch.hpp>
#include <utility>

#include "base/result.hpp"

namespace odx::test {

template <class T>
T must(Result<T> result) {
  if (!result) {
    FAIL(result.error().message() << " at " << result.error().where().file_name() << ":"
                                  << result.error().where().line());
  }
  return *std::move(result);
}

inline void must(Result<void> result) {
  if (!result) {
    FAIL(result.error().message() << " at " << result.error().where().file_name() << ":"
                                  << result.error().where().line());
  }
}

}  // namespace odx::test
