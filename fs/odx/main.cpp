#include <iostream>
#include <string>
#include <vector>

#include "base/standard_streams.hpp"
#include "odx_main.hpp"

int main(int argc, char** argv) {
  if (!odx::open_missing_standard_streams()) {
    return 1;
  }
  return odx::cli::odx_main(std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc),
                            std::cin, std::cout, std::cerr);
}
