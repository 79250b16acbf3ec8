/* An executable enclave, for test_edp.py: its arguments, one a line. */
#include "broch.h"

int main(int argc, char **argv) {
    for (int i = 0; i < argc; i++)
        printf("%d %s\n", i, argv[i]);
    if (argv[argc] != NULL)
        return 99;
    return argc > 1 && strcmp(argv[1], "fail") == 0 ? 3 : 0;
}
