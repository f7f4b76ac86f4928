/* Any bytes at both ends of _lanes.c, under sanitizers: an interface, a socket, and one lane between them.

   As burst_harness.c, libFuzzer's target or with -DSTANDALONE a program. An input is a byte of switches, 8 bytes of
   parameters, and packets: two bytes of size, then so many bytes. Each packet is a frame of the interface, a datagram as
   it is, or one that is sealed for the lane first. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "_burst.h"

#include "_lanes.h"

#include "harness.h"

enum { OLD = 1, CLOSED = 2, ELSEWHERE = 4, FORGE = 8, TWICE = 16, BROKEN = 32, PLAIN = 64 };
enum { SLOT = 1 << 16, SLOTS = 4, LARGEST = 10 + 65535, FRAMES = 8, ROWS = 2048, OUT = 1 << 18, GROUPS = 4 };

static int tun[2], sockets[2], epoll;
static struct sockaddr_in names[2];
static burst_table *table;
static void *seals, *opens;

static void add(int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
}

static void set_up(void) {
    if (table) return;
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, tun) == 0);
    for (int i = 0; i < 2; i++) {
        socklen_t size = sizeof names[i];
        names[i].sin_family = AF_INET;
        names[i].sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        sockets[i] = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        CHECK(bind(sockets[i], (struct sockaddr *)(void *)&names[i], size) == 0);
        CHECK(getsockname(sockets[i], (struct sockaddr *)(void *)&names[i], &size) == 0);
    }
    epoll = epoll_create1(0);
    add(tun[0]);
    add(sockets[0]);
    table = calloc(1, sizeof *table);
    CHECK(table);
    table->tun = tun[0];
    table->sockets[0] = sockets[0];
    table->sockets[1] = -1;
    table->merge = 3;
    table->frames_size = 2 * LARGEST;
    table->largest = LARGEST;
    table->max_frames = FRAMES;
    table->slot = SLOT;
    table->slots = SLOTS;
    table->out_size = OUT;
    table->max_groups = GROUPS;
    table->max_rows = ROWS;
    table->frames = malloc(table->frames_size);
    table->frame_spans = malloc(8 * FRAMES);
    table->frame_runs = malloc(4 * FRAMES);
    table->datagrams = malloc(SLOT * SLOTS);
    table->received = malloc(SLOTS * sizeof *table->received);
    table->out = malloc(OUT);
    table->groups = malloc(16 * GROUPS);
    table->spans = malloc(8 * ROWS);
    table->runs = malloc(4 * ROWS);
    table->counters = malloc(8 * ROWS);
    table->forged = malloc(ROWS);
    table->refused = malloc(ROWS);
    seals = burst_key_new(KEY, 1);
    opens = burst_key_new(KEY, 0);
}

static void drain(int fd) {
    static uint8_t nothing[1 << 17];
    while (recv(fd, nothing, sizeof nothing, 0) >= 0) {
    }
}

/* A packet as the lane's other end would send it; its size */
static size_t sealed(const uint8_t *packet, size_t size, uint64_t counter, uint8_t *to) {
    static uint8_t frame[LARGEST];
    uint32_t span[2] = {0, (uint32_t)size + 10}, group[4];
    burst_sealing at = {.counter = counter};
    memset(frame, 0, 10);
    memcpy(frame + 10, packet, size);
    CHECK(burst_seal(seals, frame, size + 10, span, 1, 7, 1420, to, SLOT, group, 1, &at) == 1);
    return at.used;
}

static void one(const uint8_t *switches, const uint8_t *data, size_t size) {
    set_up();
    uint32_t found[2 * MAX_FRAMES], count = parse(data, size, found);
    burst_counters *counters = calloc(1, sizeof *counters);
    burst_lane *lane = calloc(1, sizeof *lane);
    CHECK(counters && lane);
    lane->seals = seals;
    lane->opens = opens;
    lane->counters = counters;
    lane->until = switches[0] & OLD ? 1 : 1e18;
    lane->index = lane->remote = 7;
    lane->mtu = switches[1] | (uint32_t)switches[2] << 8;
    lane->row_bytes = switches[0] & PLAIN ? 0 : 65507;
    lane->fd = switches[0] & BROKEN ? -1 : sockets[0];
    lane->name_size = sizeof names[1];
    memcpy(lane->name, &names[1], sizeof names[1]);
    if (switches[0] & ELSEWHERE) lane->name[2] ^= 1;
    counters->lane = !(switches[0] & CLOSED);
    counters->next_sent = switches[3] & 1 ? ((uint64_t)1 << 60) - 1 : switches[4];
    burst_clear_lanes(table);
    table->lanes[7] = lane;
    table->slept = 1e18;
    for (uint32_t i = 0; i < count && i < 3; i++) { /* the addresses of the first few are the lane's */
        const uint8_t *packet = data + found[2 * i];
        if (found[2 * i + 1] >= 30 && packet[10] >> 4 == 4) burst_add_route(table, packet + 26, 4, 7);
        if (found[2 * i + 1] >= 50 && packet[10] >> 4 == 6) burst_add_route(table, packet + 34, 16, 7);
        if (found[2 * i + 1] >= 20 && packet[0] >> 4 == 4) burst_add_route(table, packet + 12, 4, 7);
        if (found[2 * i + 1] >= 40 && packet[0] >> 4 == 6) burst_add_route(table, packet + 8, 16, 7);
    }
    static uint8_t datagram[SLOT];
    uint64_t counter = switches[5];
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *packet = data + found[2 * i];
        size_t length = found[2 * i + 1];
        switch ((switches[6] >> i % 8 & 1) + 2 * (switches[7] >> i % 8 & 1)) {
        case 0:
            send(tun[1], packet, length, 0);
            break;
        case 1:
            sendto(sockets[1], packet, length, 0, (struct sockaddr *)(void *)&names[0], sizeof names[0]);
            break;
        default:
            if (length > 60000) length = 60000;
            length = sealed(packet, length, counter, datagram);
            if (switches[0] & FORGE && i % 3 == 1) datagram[length - 1] ^= 1;
            for (int times = 0; times < (switches[0] & TWICE && i % 4 == 2 ? 2 : 1); times++)
                sendto(sockets[1], datagram, length, 0, (struct sockaddr *)(void *)&names[0], sizeof names[0]);
            counter += 1 + (switches[8] & 1) * i;
        }
    }
    burst_event events[8];
    for (int waits = 0; waits < 40; waits++) {
        uint64_t before = counters->next_sent;
        int others = burst_wait(table, epoll, 0, events, 8);
        CHECK(others >= 0 && others <= 8);
        CHECK(counters->next_sent >= before);
        if (!counters->lane || switches[0] & OLD) CHECK(table->used_count == 0 && counters->next_sent == before);
        if (table->left & LEFT_FRAMES && table->frame_count > 0) {
            uint32_t rest = 0;
            CHECK(table->frame_run < table->frame_run_count);
            for (uint32_t run = table->frame_run; run < table->frame_run_count; run++) rest += table->frame_runs[run];
            CHECK(table->frame_first + rest == (uint32_t)table->frame_count);
        }
        if (table->left & LEFT_DATAGRAMS && table->received_count > 0)
            CHECK(table->received_first < (uint32_t)table->received_count);
        if (table->left & LEFT_SEALED) {
            CHECK(table->by == lane && table->group_first < table->group_count);
            for (uint32_t g = table->group_first; g < table->group_count; g++)
                CHECK((size_t)table->groups[4 * g] + table->groups[4 * g + 1] <= OUT);
        }
        if (table->left & LEFT_OPENED) {
            uint32_t frame = table->opened_first;
            CHECK(table->by == lane && table->run_first < table->run_count);
            for (uint32_t run = table->run_first; run < table->run_count; run++) frame += table->runs[run];
            CHECK(frame <= ROWS && (size_t)table->spans[2 * frame - 2] + table->spans[2 * frame - 1] <= OUT);
        }
        int is_done = others == 0 && table->left == 0 && table->used_count == 0;
        table->left = 0;
        for (uint32_t i = 0; i < table->used_count; i++) table->used[i]->used = 0;
        table->used_count = 0;
        if (is_done) break;
    }
    drain(tun[0]);
    drain(tun[1]);
    drain(sockets[0]);
    drain(sockets[1]);
    burst_clear_lanes(table);
    free(lane);
    free(counters);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size >= 9 && size <= 70000) one(data, data + 9, size - 9);
    return 0;
}
