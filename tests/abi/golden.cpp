// golden.c as C++.
#include "golden.c"
