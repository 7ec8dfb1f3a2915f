#include "daemon.hpp"

int main(int argc, char** argv) { return odx::daemon::odxfs_main(argc, argv); }
