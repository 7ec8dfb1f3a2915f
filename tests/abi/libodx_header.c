/* <odx/odx.h> by itself, as C89 has it: that it compiles and links is the test. */
#include <odx/odx.h>

int main(void) {
  uint64_t written = 0;
  struct odx_result result;
  struct odx_copy_report report;
  if (odx_zero(-1, 0, 512, &written, &result) == 0) {
    return 1;
  }
  return odx_copy(-1, -1, 0, &report) == 0;
}
