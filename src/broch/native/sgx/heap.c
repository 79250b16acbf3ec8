/* The heap: one list of free blocks in order of address, first fit, neighbours joined. */
#include "internal.h"

#define ALIGN 16

struct block {
    size_t size;        /* with this header; a multiple of ALIGN */
    struct block *next; /* of a free block; of a used one, USED */
};

static struct block *const USED = (struct block *)(uintptr_t)0x5eedb10c5eedb10d;
static struct block *first;
static uint64_t low, high; /* the heap's ends */
static uint32_t lock;

static void enter(void) {
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
        __builtin_ia32_pause();
}

static void leave(void) {
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
}

void heap_begin(uint64_t start, uint64_t size) {
    low = start;
    high = start + size;
    first = NULL;
    if (size >= sizeof(struct block)) {
        first = (struct block *)start;
        *first = (struct block){size, NULL};
    }
}

static void *take(size_t size) {
    for (struct block **link = &first; *link != NULL; link = &(*link)->next) {
        struct block *block = *link;
        if (block->size < size)
            continue;
        if (block->size - size >= 2 * sizeof(struct block)) {
            struct block *rest = (struct block *)((char *)block + size);
            *rest = (struct block){block->size - size, block->next};
            *link = rest;
            block->size = size;
        } else {
            *link = block->next;
        }
        block->next = USED;
        return block + 1;
    }
    return NULL;
}

void *malloc(size_t size) {
    if (size > SIZE_MAX - sizeof(struct block) - ALIGN)
        return NULL;
    enter();
    void *memory = take((size + sizeof(struct block) + ALIGN - 1) & ~(size_t)(ALIGN - 1));
    leave();
    return memory;
}

void *calloc(size_t count, size_t size) {
    size_t all;
    if (__builtin_mul_overflow(count, size, &all))
        return NULL;
    void *memory = malloc(all);
    if (memory != NULL)
        memset(memory, 0, all);
    return memory;
}

/* The block of what malloc gave; anything else ends the enclave. */
static struct block *block_of(void *memory) {
    struct block *block = (struct block *)memory - 1;
    const uint64_t at = (uint64_t)block;
    if ((uint64_t)memory % ALIGN != 0 || at < low || at >= high || block->next != USED ||
        block->size > high - at)
        broch_abort("free or realloc of what was not allocated, or of what is free already");
    return block;
}

static void join(struct block *block) {
    struct block *next = block->next;
    if (next != NULL && (char *)block + block->size == (char *)next) {
        block->size += next->size;
        block->next = next->next;
    }
}

void free(void *memory) {
    if (memory == NULL)
        return;
    enter();
    struct block *block = block_of(memory), *before = NULL;
    struct block **link = &first;
    while (*link != NULL && *link < block) {
        before = *link;
        link = &before->next;
    }
    block->next = *link;
    *link = block;
    join(block);
    if (before != NULL)
        join(before);
    leave();
}

void *realloc(void *memory, size_t size) {
    if (memory == NULL)
        return malloc(size);
    enter();
    const size_t room = block_of(memory)->size - sizeof(struct block);
    leave();
    if (size <= room)
        return memory;
    void *larger = malloc(size);
    if (larger != NULL) {
        memcpy(larger, memory, room);
        free(memory);
    }
    return larger;
}
