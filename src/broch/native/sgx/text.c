/* Bytes, strings, printf. */
#include "internal.h"

#define STDOUT 1

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    void *start = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size)::"memory");
    return start;
}

void *memmove(void *to, const void *from, size_t size) {
    uint8_t *t = to;
    const uint8_t *f = from;
    if ((uintptr_t)t - (uintptr_t)f >= size)
        return memcpy(to, from, size);
    while (size-- != 0) {
        t[size] = f[size];
        __asm__ volatile("" ::: "memory"); /* or this becomes a call of memmove */
    }
    return to;
}

void *memset(void *to, int value, size_t size) {
    void *start = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
    return start;
}

int memcmp(const void *a, const void *b, size_t size) {
    const uint8_t *x = a, *y = b;
    for (size_t i = 0; i < size; i++)
        if (x[i] != y[i])
            return x[i] - y[i];
    return 0;
}

bool broch_equal(const void *a, const void *b, size_t size) {
    const volatile uint8_t *x = a, *y = b;
    uint8_t differences = 0;
    for (size_t i = 0; i < size; i++)
        differences |= (uint8_t)(x[i] ^ y[i]);
    return differences == 0;
}

void broch_wipe(void *memory, size_t size) {
    memset(memory, 0, size);
    __asm__ volatile("" ::"r"(memory) : "memory");
}

size_t strlen(const char *text) {
    size_t size = 0;
    while (text[size] != 0) {
        size++;
        __asm__ volatile(""); /* or this becomes a call of strlen */
    }
    return size;
}

int strncmp(const char *a, const char *b, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (a[i] != b[i] || a[i] == 0)
            return (uint8_t)a[i] - (uint8_t)b[i];
    return 0;
}

int strcmp(const char *a, const char *b) {
    return strncmp(a, b, SIZE_MAX);
}

/* Where text goes: as much as there is room for; all of it is counted. */
struct sink {
    char *out;
    size_t room;
    size_t size;
};

static void put(struct sink *sink, char c) {
    if (sink->size < sink->room)
        sink->out[sink->size] = c;
    sink->size++;
}

/* A conversion: %[flags][width][.precision][size]letter. */
struct conversion {
    bool left, zero;
    size_t width;
    size_t precision; /* of s only; SIZE_MAX: none */
    char size;        /* 0, h, H (hh), l (l, ll, z: 64 bits all) */
    char letter;
};

static size_t read_number(const char **at, va_list *arguments) {
    size_t number = 0;
    if (**at == '*') {
        const int given = va_arg(*arguments, int);
        (*at)++;
        return given < 0 ? 0 : (size_t)given;
    }
    for (; **at >= '0' && **at <= '9'; (*at)++)
        number = number * 10 + (size_t)(**at - '0');
    return number;
}

static struct conversion read_conversion(const char **at, va_list *arguments) {
    struct conversion c = {.precision = SIZE_MAX};
    for (; **at == '-' || **at == '0'; (*at)++)
        *(**at == '-' ? &c.left : &c.zero) = true;
    c.width = read_number(at, arguments);
    if (**at == '.') {
        (*at)++;
        c.precision = read_number(at, arguments);
    }
    for (; **at == 'h' || **at == 'l' || **at == 'z'; (*at)++)
        c.size = **at == 'h' ? (c.size == 'h' ? 'H' : 'h') : 'l';
    c.letter = *(*at)++;
    return c;
}

static void put_padded(struct sink *sink, const struct conversion *c, const char *sign,
                       const char *text, size_t size) {
    const size_t all = strlen(sign) + size;
    const size_t padding = c->width > all ? c->width - all : 0;
    const bool zeros = c->zero && !c->left;
    for (size_t i = 0; !zeros && !c->left && i < padding; i++)
        put(sink, ' ');
    while (*sign != 0)
        put(sink, *sign++);
    for (size_t i = 0; zeros && i < padding; i++)
        put(sink, '0');
    for (size_t i = 0; i < size; i++)
        put(sink, text[i]);
    for (size_t i = 0; c->left && i < padding; i++)
        put(sink, ' ');
}

static void put_number(struct sink *sink, const struct conversion *c, const char *sign,
                       uint64_t value, unsigned base) {
    char digits[20];
    size_t at = sizeof digits;
    do {
        const unsigned digit = value % base;
        digits[--at] = (c->letter == 'X' ? "0123456789ABCDEF" : "0123456789abcdef")[digit];
        value /= base;
    } while (value != 0);
    put_padded(sink, c, sign, digits + at, sizeof digits - at);
}

static void put_signed(struct sink *sink, const struct conversion *c, va_list *arguments) {
    int64_t value = c->size == 'l' ? va_arg(*arguments, int64_t) : va_arg(*arguments, int);
    if (c->size == 'h')
        value = (int16_t)value;
    if (c->size == 'H')
        value = (int8_t)value;
    put_number(sink, c, value < 0 ? "-" : "", value < 0 ? -(uint64_t)value : (uint64_t)value, 10);
}

static void put_unsigned(struct sink *sink, const struct conversion *c, va_list *arguments) {
    uint64_t value = c->size == 'l' ? va_arg(*arguments, uint64_t) : va_arg(*arguments, unsigned);
    if (c->size == 'h')
        value = (uint16_t)value;
    if (c->size == 'H')
        value = (uint8_t)value;
    put_number(sink, c, "", value, c->letter == 'u' ? 10 : 16);
}

static void put_string(struct sink *sink, const struct conversion *c, const char *text) {
    size_t size = 0;
    if (text == NULL)
        text = "(null)";
    while (size < c->precision && text[size] != 0)
        size++;
    put_padded(sink, c, "", text, size);
}

static void put_conversion(struct sink *sink, const struct conversion *c, va_list *arguments) {
    char character;
    switch (c->letter) {
    case 'd':
    case 'i':
        put_signed(sink, c, arguments);
        return;
    case 'u':
    case 'x':
    case 'X':
        put_unsigned(sink, c, arguments);
        return;
    case 'p':
        put_number(sink, c, "0x", (uint64_t)va_arg(*arguments, void *), 16);
        return;
    case 's':
        put_string(sink, c, va_arg(*arguments, const char *));
        return;
    case 'c':
        character = (char)va_arg(*arguments, int);
        put_padded(sink, c, "", &character, 1);
        return;
    case '%':
        put(sink, '%');
        return;
    default:
        broch_abort("printf: a conversion that is not known");
    }
}

int vsnprintf(char *out, size_t size, const char *format, va_list arguments) {
    struct sink sink = {out, size == 0 ? 0 : size - 1, 0};
    va_list rest;
    va_copy(rest, arguments);
    while (*format != 0) {
        if (*format != '%') {
            put(&sink, *format++);
            continue;
        }
        format++;
        const struct conversion c = read_conversion(&format, &rest);
        put_conversion(&sink, &c, &rest);
    }
    va_end(rest);
    if (size != 0)
        out[sink.size < sink.room ? sink.size : sink.room] = 0;
    return sink.size > INT32_MAX ? -1 : (int)sink.size;
}

int snprintf(char *out, size_t size, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const int made = vsnprintf(out, size, format, arguments);
    va_end(arguments);
    return made;
}

int printf(const char *format, ...) {
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    const int made = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (made < (int)sizeof line) {
        broch_write(STDOUT, line, made < 0 ? 0 : (size_t)made);
        return made;
    }
    char *text = malloc((size_t)made + 1);
    if (text == NULL)
        broch_abort("printf: the heap is full: raise --heap-size");
    va_start(arguments, format);
    vsnprintf(text, (size_t)made + 1, format, arguments);
    va_end(arguments);
    broch_write(STDOUT, text, (size_t)made);
    free(text);
    return made;
}

void broch_print(const char *text) {
    broch_write(STDOUT, text, strlen(text));
}

int puts(const char *text) {
    return printf("%s\n", text);
}
