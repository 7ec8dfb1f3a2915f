// What nearly every test includes, compiled once (see lib/precompiled/standard.hpp).
#include <rapidcheck.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>
