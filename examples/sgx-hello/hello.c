/* An SGX enclave in C. From the repository's root, on any x86-64 Linux, without SGX:
 *
 *     broch run examples/sgx-hello/hello.c -- Ada
 */
#include "broch.h"

static void print_hex(const char *what, const uint8_t *bytes, size_t size) {
    printf("%-12s ", what);
    for (size_t i = 0; i < size; i++)
        printf("%02x", bytes[i]);
    printf("\n");
}

int main(int argc, char **argv) {
    printf("hello, %s\n", argc > 1 ? argv[1] : "world");

    /* Who we are, as the CPU says it: offsets in REPORT, SDM 3D 37.15. */
    const uint8_t nonce[BROCH_REPORT_DATA_SIZE] = "asked by nobody in particular";
    uint8_t report[BROCH_REPORT_SIZE];
    broch_report(NULL, nonce, report);
    print_hex("MRENCLAVE", report + 64, 32);
    print_hex("MRSIGNER", report + 128, 32);

    /* A key that only this enclave has, on this CPU: the same in every run, and never shown. */
    const uint8_t label[32] = "examples/sgx-hello";
    uint8_t key[BROCH_SEAL_KEY_SIZE];
    if (!broch_seal_key(BROCH_SEAL_TO_CODE, label, NULL, key))
        return 1;
    printf("%-12s %d bits, ours alone\n", "seal key", 8 * BROCH_SEAL_KEY_SIZE);
    broch_wipe(key, sizeof key);
    return 0;
}
