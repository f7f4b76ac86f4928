/* Packets that need no thought, while Python sleeps in the wait for events. _lanes.h says what a lane is. */

#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "_burst.h"

#include "_lanes.h"

enum { VIRTIO = 10, HEADER = 16, TAG = 16, MAX_SEGMENTS = 64, MAX_EVENTS = 64 };
static const uint64_t LAST_COUNTER = (uint64_t)1 << 60; /* REKEY_AFTER_MESSAGES: from then on a handshake is due */
static const double TELL_AFTER = 0.05; /* seconds that Python may not know of what went through */

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint32_t little32(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Which peer an address belongs to */

static burst_route *place_of(burst_table *t, const uint8_t *address, uint32_t size) {
    uint32_t hash = size;
    for (uint32_t i = 0; i < size; i++) hash = (hash ^ address[i]) * 16777619u;
    return t->routes + (hash ^ hash >> 15) % BURST_ROUTES;
}

void burst_clear_lanes(burst_table *t) {
    memset(t->lanes, 0, sizeof t->lanes);
    memset(t->routes, 0, sizeof t->routes);
}

void burst_add_route(burst_table *t, const uint8_t *address, uint32_t size, uint32_t lane) {
    if (size != 4 && size != 16) return;
    burst_route *route = place_of(t, address, size);
    route->lane = lane;
    route->size = size;
    memset(route->address, 0, sizeof route->address);
    memcpy(route->address, address, size);
}

static burst_lane *lane_of_index(burst_table *t, uint32_t index, double now) {
    burst_lane *lane = t->lanes[index % BURST_LANES];
    return lane && lane->index == index && lane->counters->lane && now < lane->until ? lane : NULL;
}

/* The lane of who has the address at `at4` or `at6` of a packet; NULL when Python has to say. */
static burst_lane *lane_of_address(burst_table *t, const uint8_t *packet, size_t size, size_t at4, size_t at6,
                                   double now) {
    uint32_t bytes = size >= 20 && packet[0] >> 4 == 4 ? 4 : size >= 40 && packet[0] >> 4 == 6 ? 16 : 0;
    if (!bytes) return NULL;
    const uint8_t *address = packet + (bytes == 4 ? at4 : at6);
    burst_route *route = place_of(t, address, bytes);
    if (route->size != bytes || memcmp(route->address, address, bytes) != 0) return NULL;
    return lane_of_index(t, route->lane, now);
}

/* There is something to tell of this lane; 0 when there is no room to note that. */
static int use(burst_table *t, burst_lane *lane) {
    if (lane->used) return 1;
    if (t->used_count == BURST_USED) return 0;
    t->used[t->used_count++] = lane;
    lane->used = 1;
    return 1;
}

/* Out */

/* Send what is sealed, group by group; from the first on that cannot be sent as it is, they are left. */
static void send_groups(burst_table *t, burst_lane *lane) {
    for (uint32_t group = 0; group < t->group_count; group++) {
        const uint32_t *g = t->groups + 4 * (size_t)group;
        uint32_t ecn = g[3] % 3, segments = lane->row_bytes / g[2];
        int error = 0;
        if (segments > MAX_SEGMENTS) segments = MAX_SEGMENTS;
        size_t sent = burst_send(lane->fd, lane->name, lane->name_size, lane->control[ecn], lane->control_size[ecn],
                                 t->out + g[0], g[1], g[2], segments ? segments : 1, &error);
        if (sent < g[1]) {
            t->groups[4 * (size_t)group] += (uint32_t)sent;
            t->groups[4 * (size_t)group + 1] -= (uint32_t)sent;
            t->group_first = group;
            t->by = lane;
            t->left |= LEFT_SEALED;
            return;
        }
    }
}

/* Send `count` frames from `first` on by a lane; 0, and none is, when there is no room for all of them at once. */
static int send_run(burst_table *t, burst_lane *lane, uint32_t first, uint32_t count, double now) {
    burst_sealing at = {.counter = lane->counters->next_sent};
    int is_done = burst_seal(lane->seals, t->frames, t->frames_size, t->frame_spans + 2 * (size_t)first, count,
                             lane->remote, lane->mtu, t->out, t->out_size, t->groups, t->max_groups, &at);
    lane->counters->next_sent = at.counter; /* no counter is for two packets, sent or not */
    if (is_done < 0) lane->bad_frames += count;
    if (is_done <= 0) return is_done;
    t->group_count = at.groups;
    lane->bad_frames += at.bad;
    lane->tx_bytes += at.used;
    if (at.used) {
        lane->sent_at = now;
        if (lane->unanswered_at == 0) lane->unanswered_at = now;
        lane->waiting_at = 0;
        lane->waits = 0;
    }
    send_groups(t, lane);
    return 1;
}

/* Read the interface once, and send what may take a lane. */
static void carry_out(burst_table *t, double now) {
    t->frame_count = burst_read(t->tun, t->frames, t->frames_size, t->largest, t->frame_spans, t->max_frames,
                                t->frame_runs, &t->frame_run_count);
    t->frame_first = 0;
    if (t->frame_count < 0) t->left |= LEFT_FRAMES;
    if (t->frame_count <= 0) return;
    for (t->frame_run = 0; t->frame_run < t->frame_run_count && !t->left; t->frame_run++) {
        const uint32_t *span = t->frame_spans + 2 * (size_t)t->frame_first;
        const uint8_t *packet = t->frames + span[0] + VIRTIO;
        size_t size = span[1] > VIRTIO ? span[1] - VIRTIO : 0;
        burst_lane *lane = lane_of_address(t, packet, size, 16, 24, now);
        if (!lane || burst_nested(packet, size) || lane->counters->next_sent >= LAST_COUNTER || !use(t, lane)) break;
        if (!send_run(t, lane, t->frame_first, t->frame_runs[t->frame_run], now)) break;
        t->frame_first += t->frame_runs[t->frame_run];
    }
    if (t->frame_run < t->frame_run_count) t->left |= LEFT_FRAMES;
}

/* In */

/* Deliver opened frames of a lane, run by run; they are left from the first on that is not its peer's, or not taken. */
static void deliver(burst_table *t, burst_lane *lane, double now) {
    uint32_t first = 0;
    for (uint32_t run = 0; run < t->run_count; run++) {
        const uint32_t *span = t->spans + 2 * (size_t)first;
        burst_lane *owner = lane_of_address(t, t->out + span[0] + VIRTIO, span[1] - VIRTIO, 12, 8, now);
        uint32_t written = 0;
        int error = 0;
        if (owner == lane)
            written = (uint32_t)burst_write(t->tun, t->out, t->out_size, span, t->runs[run], &error);
        first += written;
        if (written < t->runs[run]) {
            t->runs[run] -= written;
            t->run_first = run;
            t->opened_first = first;
            t->by = lane;
            t->left |= LEFT_OPENED;
            return;
        }
    }
}

/* Open a burst of `rows` rows that came by a lane. */
static void receive_burst(burst_table *t, burst_lane *lane, const uint8_t *data, const burst_received *r,
                          uint32_t rows, double now) {
    burst_opened opened;
    int simple = burst_open(lane->opens, data, r->size, r->row, NULL, (int)t->merge, (int)r->tos, t->out, 0,
                            t->out_size, t->spans, t->runs, t->counters, t->forged, t->max_rows, &opened);
    uint32_t accepted = rows, size = r->size, keepalives;
    if (simple < 0) return;
    if (!(opened.consecutive && opened.authentic == rows && burst_accept_run(lane->counters, opened.first, rows))) {
        uint32_t replayed = 0;
        for (uint32_t i = 0; i < rows; i++) {
            size_t start = (size_t)i * r->row, bytes = r->size - start < r->row ? r->size - start : r->row;
            t->refused[i] = !t->forged[i] && !burst_accept(lane->counters, t->counters[i]);
            replayed += t->refused[i];
            if (t->refused[i] || t->forged[i]) {
                accepted--;
                size -= (uint32_t)bytes;
            }
        }
        lane->replayed += replayed;
        if (replayed)
            burst_open(lane->opens, data, r->size, r->row, t->refused, (int)t->merge, (int)r->tos, t->out, 0,
                       t->out_size, t->spans, t->runs, t->counters, t->forged, t->max_rows, &opened);
    }
    lane->forged += opened.forged;
    lane->bad_packets += opened.bad;
    if (!accepted) return;
    keepalives = opened.keepalives;
    lane->rx_bytes += size;
    lane->received_at = now;
    lane->unanswered_at = 0;
    if (accepted > keepalives) {
        if (lane->waits || accepted - keepalives > 1) lane->more_came = 1;
        if (!lane->waits) lane->waiting_at = now;
        lane->waits = 1;
    }
    t->run_count = opened.runs;
    deliver(t, lane, now);
}

/* The lane that what was received may take; NULL when it may not, or not all of it. */
static burst_lane *lane_of_burst(burst_table *t, const uint8_t *data, const burst_received *r, uint32_t *rows,
                                 double now) {
    if (r->size < HEADER + TAG || r->row == 0) return NULL;
    *rows = (uint32_t)(((size_t)r->size + r->row - 1) / r->row);
    if (*rows > t->max_rows || burst_run(data, r->size, r->row) != *rows) return NULL;
    burst_lane *lane = lane_of_index(t, little32(data + 4), now);
    if (!lane || r->name_size != lane->name_size || memcmp(r->name, lane->name, r->name_size) != 0) return NULL;
    if (r->local_size != lane->local_size || r->interface != lane->interface ||
        memcmp(r->local, lane->local, r->local_size) != 0)
        return NULL;
    return use(t, lane) ? lane : NULL;
}

/* Receive once, and deliver what may take a lane. */
static void carry_in(burst_table *t, int fd, double now) {
    t->received_fd = fd;
    t->received_count = burst_receive(fd, t->datagrams, t->slot, t->slots, t->received);
    t->received_first = 0;
    if (t->received_count < 0) t->left |= LEFT_DATAGRAMS;
    if (t->received_count <= 0) return;
    for (; t->received_first < (uint32_t)t->received_count && !t->left; t->received_first++) {
        const uint8_t *data = t->datagrams + t->received_first * t->slot;
        const burst_received *r = t->received + t->received_first;
        uint32_t rows;
        burst_lane *lane = lane_of_burst(t, data, r, &rows, now);
        if (!lane) break;
        receive_burst(t, lane, data, r, rows, now);
    }
    if (t->received_first < (uint32_t)t->received_count) t->left |= LEFT_DATAGRAMS;
}

/* Waiting */

/* Milliseconds to wait for something at `end`; -1 for ever */
static int until(double end, double now) {
    if (end < 0) return -1;
    return end <= now ? 0 : (int)((end - now) * 1e3) + 1;
}

int burst_wait(burst_table *t, int epoll, int milliseconds, burst_event *events, int max) {
    struct epoll_event found[MAX_EVENTS];
    if (max > MAX_EVENTS) max = MAX_EVENTS;
    double end = milliseconds < 0 ? -1 : seconds(CLOCK_MONOTONIC) + milliseconds * 1e-3;
    for (;;) {
        int count = epoll_wait(epoll, found, max, milliseconds), others = 0;
        if (count < 0) return errno == EINTR ? 0 : -errno;
        double awake = seconds(CLOCK_MONOTONIC), now = seconds(CLOCK_BOOTTIME);
        int may_carry = now - awake < t->slept; /* else Python has to learn first that the machine was suspended */
        uint32_t told = t->used_count;
        for (int i = 0; i < count; i++) {
            int fd = found[i].data.fd, may = may_carry && !t->left && found[i].events == EPOLLIN;
            if (may && fd == t->tun) {
                carry_out(t, now);
            } else if (may && (fd == t->sockets[0] || fd == t->sockets[1])) {
                carry_in(t, fd, now);
            } else {
                events[others].fd = fd;
                events[others++].events = found[i].events;
            }
        }
        if (others || t->left || count == 0) return others;
        if (!told && t->used_count && (end < 0 || end > awake + TELL_AFTER)) end = awake + TELL_AFTER;
        if (end >= 0 && end <= awake) return 0;
        milliseconds = until(end, awake);
    }
}
