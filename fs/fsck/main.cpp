#include <iostream>
#include <string>
#include <vector>

#include "fsck_main.hpp"

int main(int argc, char** argv) {
  return odx::cli::fsck_main(std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc),
                             std::cout, std::cerr);
}
