#include <iostream>
#include <string>
#include <vector>

#include "odx_main.hpp"

int main(int argc, char** argv) {
  return odx::cli::odx_main(std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc),
                            std::cin, std::cout, std::cerr);
}
