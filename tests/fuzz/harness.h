/* What both harnesses need: checks, how an input is read, and a program that changes inputs. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHECK(truth)                                                            \
    do {                                                                        \
        if (!(truth)) {                                                         \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #truth); \
            abort();                                                            \
        }                                                                       \
    } while (0)

enum { MAX_FRAMES = 64 };

static const uint8_t KEY[32] = {1, 2, 3};

/* The packets of an input: spans of `data`, at most MAX_FRAMES */
static uint32_t parse(const uint8_t *data, size_t size, uint32_t *spans) {
    uint32_t count = 0;
    size_t at = 0;
    while (count < MAX_FRAMES && at + 2 <= size) {
        size_t length = data[at] | (size_t)data[at + 1] << 8;
        at += 2;
        if (length > size - at) length = size - at;
        spans[2 * count] = (uint32_t)at;
        spans[2 * count + 1] = (uint32_t)length;
        at += length;
        count++;
    }
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifdef STANDALONE
enum { MAX_INPUT = 70000 };

static uint64_t state;

static uint32_t chance(uint32_t below) { /* xorshift64* */
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 2685821657736338717u) >> 33) % below;
}

/* Change a few bytes, some to values at an edge; sometimes cut or take the end of another input. */
static size_t change(uint8_t *input, size_t size, const uint8_t *other, size_t other_size) {
    static const uint8_t edges[] = {0, 1, 4, 5, 6, 15, 16, 17, 20, 40, 0x45, 0x60, 0x7f, 0x80, 0xff};
    for (uint32_t n = 1 + chance(6); n > 0 && size > 9; n--) {
        size_t near = chance(3) ? size : (size < 110 ? size : 110), at = chance((uint32_t)near);
        switch (chance(8)) {
        case 0:
            size = 9 + chance((uint32_t)(size - 8));
            break;
        case 1:
            if (other_size > at) {
                size = other_size;
                memcpy(input + at, other + at, other_size - at);
            }
            break;
        case 2:
            input[at] ^= (uint8_t)(1 << chance(8));
            break;
        case 3:
            input[at] = (uint8_t)chance(256);
            break;
        default:
            input[at] = edges[chance(sizeof edges)];
        }
    }
    return size;
}

int main(int count, char **arguments) {
    if (count < 4) return 2;
    static uint8_t inputs[512][MAX_INPUT], input[MAX_INPUT];
    static size_t sizes[512];
    uint32_t files = 0;
    unsigned long runs = 0;
    state = strtoull(arguments[1], NULL, 10) | 1;
    for (int i = 3; i < count && files < 512; i++) {
        FILE *file = fopen(arguments[i], "rb");
        if (!file) return 2;
        sizes[files] = fread(inputs[files], 1, MAX_INPUT, file);
        fclose(file);
        LLVMFuzzerTestOneInput(inputs[files], sizes[files]);
        files++;
    }
    clock_t end = clock() + (clock_t)(atof(arguments[2]) * CLOCKS_PER_SEC);
    for (; clock() < end; runs++) {
        uint32_t one = chance(files), other = chance(files);
        memcpy(input, inputs[one], sizes[one]);
        LLVMFuzzerTestOneInput(input, change(input, sizes[one], inputs[other], sizes[other]));
    }
    printf("%u files, %lu changed\n", files, runs);
    return 0;
}
#endif
