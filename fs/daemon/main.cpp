#include "base/standard_streams.hpp"
#include "daemon.hpp"

int main(int argc, char** argv) {
  return odx::open_missing_standard_streams() ? odx::daemon::odxfs_main(argc, argv) : 1;
}
