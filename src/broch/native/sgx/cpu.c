/* What only the CPU can do: reports, keys, random numbers (SDM 3D 38.4; layouts in 37.15-37.18). */
#include "internal.h"

#define ENCLU_EREPORT 0
#define ENCLU_EGETKEY 1
#define RDRAND_TRIES 16

enum { KEYNAME_SEAL = 4 };
enum { INVALID_CPUSVN = 32, INVALID_ISVSVN = 64 };

struct report {
    uint8_t cpu_svn[16];
    uint32_t miscselect;
    uint8_t reserved1[28];
    uint8_t attributes[16];
    uint8_t mrenclave[32];
    uint8_t reserved2[32];
    uint8_t mrsigner[32];
    uint8_t reserved3[32];
    uint8_t config_id[64];
    uint16_t isv_prod_id;
    uint16_t isv_svn;
    uint16_t config_svn;
    uint8_t reserved4[58];
    uint8_t data[64];
    uint8_t key_id[32];
    uint8_t mac[16];
} __attribute__((aligned(512)));
_Static_assert(offsetof(struct report, mac) == 416, "SDM 3D 37.15");

struct targetinfo {
    uint8_t mrenclave[32];
    uint8_t attributes[16];
    uint8_t cet_attributes;
    uint8_t reserved1;
    uint16_t config_svn;
    uint32_t miscselect;
    uint8_t reserved2[8];
    uint8_t config_id[64];
    uint8_t reserved3[384];
} __attribute__((aligned(512)));
_Static_assert(sizeof(struct targetinfo) == BROCH_TARGETINFO_SIZE, "SDM 3D 37.16");

struct keyrequest {
    uint16_t name;
    uint16_t policy;
    uint16_t isv_svn;
    uint16_t reserved1;
    uint8_t cpu_svn[16];
    uint64_t attribute_mask[2];
    uint8_t key_id[32];
    uint32_t misc_mask;
    uint16_t config_svn;
    uint8_t reserved2[434];
} __attribute__((aligned(512)));
_Static_assert(sizeof(struct keyrequest) == 512, "SDM 3D 37.18");

struct report_data {
    uint8_t bytes[BROCH_REPORT_DATA_SIZE];
} __attribute__((aligned(128)));

struct key {
    uint8_t bytes[BROCH_SEAL_KEY_SIZE];
} __attribute__((aligned(16)));

/* A TARGETINFO may come from the host; of one with reserved bytes, EREPORT makes an exception. */
static bool is_targetinfo(const struct targetinfo *target) {
    uint8_t reserved = target->reserved1;
    for (size_t i = 0; i < sizeof target->reserved2; i++)
        reserved |= target->reserved2[i];
    for (size_t i = 0; i < sizeof target->reserved3; i++)
        reserved |= target->reserved3[i];
    return reserved == 0;
}

static void ereport(const void *target, const uint8_t *data, struct report *report) {
    struct targetinfo aligned_target = {0};
    struct report_data aligned_data = {0};
    uint64_t leaf = ENCLU_EREPORT;
    if (target != NULL)
        memcpy(&aligned_target, target, sizeof aligned_target);
    if (!is_targetinfo(&aligned_target))
        broch_abort("a report was asked for by no enclave: reserved bytes in its TARGETINFO");
    if (data != NULL)
        memcpy(&aligned_data, data, sizeof aligned_data);
    memset(report, 0, sizeof *report);
    __asm__ volatile("enclu"
                     : "+a"(leaf)
                     : "b"(&aligned_target), "c"(&aligned_data), "d"(report)
                     : "memory", "cc");
}

void broch_report(const void *target, const uint8_t data[BROCH_REPORT_DATA_SIZE],
                  uint8_t out[BROCH_REPORT_SIZE]) {
    struct report report;
    ereport(target, data, &report);
    memcpy(out, &report, BROCH_REPORT_SIZE);
}

void broch_targetinfo(uint8_t out[BROCH_TARGETINFO_SIZE]) {
    struct report report;
    struct targetinfo target = {0};
    ereport(NULL, NULL, &report);
    memcpy(target.mrenclave, report.mrenclave, sizeof target.mrenclave);
    memcpy(target.attributes, report.attributes, sizeof target.attributes);
    memcpy(target.config_id, report.config_id, sizeof target.config_id);
    target.config_svn = report.config_svn;
    target.miscselect = report.miscselect;
    memcpy(out, &target, sizeof target);
}

void broch_seal_version_now(struct broch_seal_version *out) {
    struct report report;
    ereport(NULL, NULL, &report);
    memcpy(out->cpu_svn, report.cpu_svn, sizeof out->cpu_svn);
    out->isv_svn = report.isv_svn;
}

bool broch_seal_key(enum broch_binding binding, const uint8_t label[32],
                    const struct broch_seal_version *version, uint8_t out[BROCH_SEAL_KEY_SIZE]) {
    struct broch_seal_version now;
    struct keyrequest request = {.name = KEYNAME_SEAL, .policy = (uint16_t)binding};
    struct key key;
    uint64_t leaf = ENCLU_EGETKEY;
    if (binding != BROCH_SEAL_TO_CODE && binding != BROCH_SEAL_TO_SIGNER)
        broch_abort("a seal key must be bound to the code or to the signer");
    if (version == NULL) {
        broch_seal_version_now(&now);
        version = &now;
    }
    request.isv_svn = version->isv_svn;
    memcpy(request.cpu_svn, version->cpu_svn, sizeof request.cpu_svn);
    /* All of ATTRIBUTES.FLAGS, so that an enclave with other rights has other keys. Not XFRM: what
     * the CPU saves may differ from host to host. */
    request.attribute_mask[0] = UINT64_MAX;
    memcpy(request.key_id, label, sizeof request.key_id);
    __asm__ volatile("enclu" : "+a"(leaf) : "b"(&request), "c"(&key) : "memory", "cc");
    if (leaf == INVALID_CPUSVN || leaf == INVALID_ISVSVN)
        return false;
    if (leaf != 0)
        broch_abort("the CPU gave no seal key");
    memcpy(out, &key, sizeof key);
    broch_wipe(&key, sizeof key);
    return true;
}

static uint64_t random_word(void) {
    for (int i = 0; i < RDRAND_TRIES; i++) {
        uint64_t word;
        bool ok;
        __asm__ volatile("rdrand %0" : "=r"(word), "=@ccc"(ok)::"cc");
        if (ok)
            return word;
    }
    broch_abort("RDRAND gives no numbers");
}

void broch_random(void *out, size_t size) {
    uint8_t *bytes = out;
    while (size != 0) {
        const uint64_t word = random_word();
        const size_t some = size < sizeof word ? size : sizeof word;
        memcpy(bytes, &word, some);
        bytes += some;
        size -= some;
    }
}
