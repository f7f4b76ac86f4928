/* Any bytes into _burst.c, under sanitizers: every buffer is exactly as large as it is said to be.

   Built with -fsanitize=fuzzer this is libFuzzer's target. Built with -DSTANDALONE it is a program:
   burst_harness SEED SECONDS FILE…  takes each file as it is, then changes of them until the time is up.

   An input is a byte of switches, 8 bytes of parameters, and packets: two bytes of size, then so many bytes. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "_burst.h"

#include "harness.h"

enum { OPEN = 1, WILD_SPANS = 2, REFUSE = 4, FORGE = 8, SHUFFLE = 16, CUT = 32, TIGHT = 64 };
static uint8_t *exactly(const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy) abort();
    if (size && data) memcpy(copy, data, size);
    if (size == 0) { /* one byte that must not be touched */
        free(copy);
        copy = malloc(0);
    }
    return copy;
}

static void fuzz_seal(const uint8_t *switches, const uint8_t *data, size_t size) {
    uint32_t found[2 * MAX_FRAMES];
    uint32_t frames = parse(data, size, found);
    if (switches[0] & WILD_SPANS)
        for (uint32_t i = 0; i < 2 * frames && 4 * (size_t)i + 4 <= size; i++) memcpy(found + i, data + 4 * i, 4);
    uint32_t mtu = switches[1] | (uint32_t)switches[2] << 8;
    size_t out_size = switches[0] & TIGHT ? (size_t)switches[3] * 8 : 66000;
    uint32_t max_groups = 1 + switches[4] % 8;
    uint8_t *input = exactly(data, size), *out = exactly(NULL, out_size);
    uint32_t *spans = (uint32_t *)(void *)exactly((const uint8_t *)found, frames * 8);
    uint32_t *groups = (uint32_t *)(void *)exactly(NULL, max_groups * 16);
    void *key = burst_key_new(KEY, 1);
    burst_sealing at = {.counter = switches[5] & 1 ? UINT64_MAX - 8128 - 5 : switches[6]};
    uint64_t first = at.counter, rows = 0;
    for (int calls = 0; calls < 3000; calls++) {
        int is_done = burst_seal(key, input, size, spans, frames, 7, mtu, out, out_size, groups, max_groups, &at);
        if (is_done < 0) break;
        uint32_t end = 0;
        for (uint32_t i = 0; i < at.groups; i++) {
            uint32_t *group = groups + 4 * i;
            CHECK(group[0] == end && group[2] >= 32 && group[1] >= group[2] && group[3] < 4);
            end += group[1];
            rows += (group[1] + group[2] - 1) / group[2];
        }
        CHECK(end == at.used && end <= out_size);
        CHECK(at.counter - first == rows);
        if (is_done) {
            CHECK(at.frame == 0 && at.segment == 0);
            break;
        }
    }
    CHECK(size == 0 || memcmp(input, data, size) == 0);
    burst_key_free(key);
    free(input);
    free(out);
    free(spans);
    free(groups);
}

/* Seal every packet as it is, padded with zeros to rows of one size; returns the row size. */
static size_t seal_rows(const uint8_t *data, const uint32_t *found, uint32_t count, uint64_t first, uint8_t **sealed) {
    size_t longest = 0;
    for (uint32_t i = 0; i < count; i++)
        if (found[2 * i + 1] > longest) longest = found[2 * i + 1];
    size_t row = longest + 32, frame_size = longest + 10;
    uint8_t *frames = calloc(count, frame_size);
    uint32_t spans[2 * MAX_FRAMES], groups[4 * MAX_FRAMES];
    *sealed = malloc(count * row);
    if (!frames || !*sealed) abort();
    for (uint32_t i = 0; i < count; i++) {
        memcpy(frames + i * frame_size + 10, data + found[2 * i], found[2 * i + 1]);
        spans[2 * i] = (uint32_t)(i * frame_size);
        spans[2 * i + 1] = (uint32_t)frame_size;
    }
    void *key = burst_key_new(KEY, 1);
    burst_sealing at = {.counter = first};
    int done = burst_seal(key, frames, count * frame_size, spans, count, 7, 0, *sealed, count * row, groups,
                          MAX_FRAMES, &at);
    CHECK(done == 1 && at.used == count * row);
    burst_key_free(key);
    free(frames);
    return row;
}

static void fuzz_open(const uint8_t *switches, const uint8_t *data, size_t size) {
    uint32_t found[2 * MAX_FRAMES];
    uint32_t count = parse(data, size, found);
    if (count == 0) return;
    uint8_t *sealed;
    size_t row = seal_rows(data, found, count, switches[6], &sealed);
    size_t total = count * row;
    if (switches[0] & SHUFFLE && count > 1) {
        size_t a = switches[1] % count, b = switches[2] % count;
        for (size_t i = 0; i < row; i++) {
            uint8_t byte = sealed[a * row + i];
            sealed[a * row + i] = sealed[b * row + i];
            sealed[b * row + i] = byte;
        }
    }
    if (switches[0] & FORGE) sealed[(switches[3] * 256u + switches[4]) % total] ^= 1;
    if (switches[0] & CUT) total -= (switches[5] * 16u) % row;
    if (switches[0] & WILD_SPANS) row = 1 + switches[7];
    size_t rows = (total + row - 1) / row;
    uint8_t *input = exactly(sealed, total), *refused = exactly(NULL, rows), *forged = exactly(NULL, rows);
    uint8_t *out = exactly(NULL, total);
    uint32_t *spans = (uint32_t *)(void *)exactly(NULL, rows * 8), *runs = (uint32_t *)(void *)exactly(NULL, rows * 4);
    uint64_t *counters = (uint64_t *)(void *)exactly(NULL, rows * 8);
    for (size_t i = 0; i < rows; i++) refused[i] = switches[1 + i % 7] & 1;
    burst_opened r;
    void *key = burst_key_new(KEY, 0);
    int status = burst_open(key, input, total, row, switches[0] & REFUSE ? refused : NULL, switches[7] & 3,
                            switches[7] >> 2 & 3, out, 0, total, spans, runs, counters, forged, (uint32_t)rows, &r);
    CHECK(burst_run(input, total, row) <= rows);
    CHECK(status == 0 || (status == (int)r.frames && r.authentic == rows && r.runs == 1));
    CHECK(r.authentic + r.forged + r.refused == rows);
    CHECK(r.frames + r.keepalives + r.bad <= r.authentic);
    size_t end = 0, in_runs = 0;
    for (uint32_t i = 0; i < r.frames; i++) {
        CHECK(spans[2 * i] == end && spans[2 * i + 1] >= 30);
        end += spans[2 * i + 1];
    }
    CHECK(end <= total);
    for (uint32_t i = 0; i < r.runs; i++) in_runs += runs[i];
    CHECK(in_runs == r.frames);
    CHECK(memcmp(input, sealed, total) == 0);
    burst_key_free(key);
    free(sealed);
    free(input);
    free(refused);
    free(forged);
    free(out);
    free(spans);
    free(runs);
    free(counters);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 9 || size > 70000) return 0;
    if (data[0] & OPEN)
        fuzz_open(data, data + 9, size - 9);
    else
        fuzz_seal(data, data + 9, size - 9);
    return 0;
}
