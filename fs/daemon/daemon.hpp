// The program odxfs: mounts a store and serves it until it is unmounted.
#pragma once

namespace odx::daemon {

// Exit status: 0 mounted (or, in the foreground, unmounted again), 1 failed, 2 bad usage. Failures
// are told on standard error in one line.
int odxfs_main(int argc, char** argv);

}  // namespace odx::daemon
