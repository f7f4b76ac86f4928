/* The system calls of the data path: as many as there is work for, in one call from Python. Nothing here waits. */

#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "_burst.h"

enum { VIRTIO = 10, MAX_SLOTS = 64, MAX_CONTROL = 256 };
enum { UDP = 17, FRAGMENT = 44 };
enum { SOL_UDP_ = 17, UDP_SEGMENT_ = 103, UDP_GRO_ = 104 }; /* linux/udp.h, which older libcs have not */

int burst_nested(const uint8_t *packet, size_t size) {
    size_t udp = 40;
    if (packet[0] >> 4 == 4) {
        if (packet[9] != UDP) return 0;
        if ((packet[6] & 0x1f) || packet[7]) return 1; /* a later fragment */
        udp = (size_t)(packet[0] & 15) * 4;
    } else if (size < 48) {
        return 0;
    } else if (packet[6] == FRAGMENT && packet[40] == UDP) {
        if (packet[42] || packet[43] & 0xf8) return 1;
        udp = 48;
    } else if (packet[6] != UDP) {
        return 0;
    }
    const uint8_t *type = packet + udp + 8;
    return size >= udp + 12 && type[0] >= 1 && type[0] <= 4 && !type[1] && !type[2] && !type[3];
}

/* Whether two frames' datagrams have equal outer headers */
static int alike(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size) {
    if (a_size < VIRTIO + 20 || b_size < VIRTIO + 20) return 0;
    a += VIRTIO;
    b += VIRTIO;
    if (a[0] >> 4 != b[0] >> 4 || burst_nested(a, a_size - VIRTIO) != burst_nested(b, b_size - VIRTIO)) return 0;
    if (a[0] >> 4 == 4) return a[1] == b[1] && memcmp(a + 8, b + 8, 2) == 0 && memcmp(a + 16, b + 16, 4) == 0;
    if (a[0] >> 4 != 6 || a_size < VIRTIO + 40 || b_size < VIRTIO + 40) return 0;
    return a[0] == b[0] && (a[1] & 0xf0) == (b[1] & 0xf0) && memcmp(a + 6, b + 6, 2) == 0 &&
           memcmp(a + 24, b + 24, 16) == 0;
}

int burst_read(int fd, uint8_t *data, size_t size, size_t largest, uint32_t *spans, uint32_t max_frames,
               uint32_t *runs, uint32_t *run_count) {
    size_t used = 0, before = 0, before_size = 0;
    uint32_t frames = 0;
    *run_count = 0;
    if (size > UINT32_MAX) size = UINT32_MAX;
    while (frames < max_frames && size - used >= largest) {
        ssize_t got = read(fd, data + used, size - used);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && frames == 0 && errno != EAGAIN) return -errno;
        if (got <= 0) break; /* another error will be there the next time too */
        if (frames && alike(data + before, before_size, data + used, (size_t)got))
            runs[*run_count - 1]++;
        else
            runs[(*run_count)++] = 1;
        spans[2 * frames] = (uint32_t)used;
        spans[2 * frames + 1] = (uint32_t)got;
        before = used;
        before_size = (size_t)got;
        used += (size_t)got;
        frames++;
    }
    return (int)frames;
}

int burst_write(int fd, const uint8_t *data, size_t data_size, const uint32_t *spans, uint32_t frames, int *error) {
    *error = 0;
    for (uint32_t i = 0; i < frames; i++) {
        size_t start = spans[2 * (size_t)i], size = spans[2 * (size_t)i + 1];
        if (start > data_size || size > data_size - start) {
            *error = EFAULT;
            return (int)i;
        }
        while (write(fd, data + start, size) < 0) {
            if (errno == EINTR) continue;
            *error = errno;
            return (int)i;
        }
    }
    return (int)frames;
}

size_t burst_send(int fd, const uint8_t *name, size_t name_size, const uint8_t *control, size_t control_size,
                  const uint8_t *data, size_t size, size_t row, size_t segments, int *error) {
    union {
        uint8_t bytes[MAX_CONTROL];
        struct cmsghdr align;
    } messages;
    struct sockaddr_storage address;
    *error = EINVAL;
    if (row > UINT16_MAX) segments = 1;
    if (row == 0 || segments == 0 || name_size > sizeof address ||
        control_size > sizeof messages - CMSG_SPACE(sizeof(uint16_t)))
        return 0;
    memset(&messages, 0, sizeof messages);
    memcpy(&address, name, name_size);
    if (control_size) memcpy(messages.bytes, control, control_size);
    struct cmsghdr *segment = (struct cmsghdr *)(void *)(messages.bytes + control_size);
    segment->cmsg_level = SOL_UDP_;
    segment->cmsg_type = UDP_SEGMENT_;
    segment->cmsg_len = CMSG_LEN(sizeof(uint16_t));
    uint16_t segment_size = (uint16_t)row;
    memcpy(CMSG_DATA(segment), &segment_size, sizeof segment_size);
    *error = 0;
    size_t sent = 0;
    do {
        size_t part = size - sent < row * segments ? size - sent : row * segments;
        struct iovec piece = {.iov_base = (void *)(uintptr_t)(data + sent), .iov_len = part};
        struct msghdr message = {.msg_name = &address, .msg_namelen = (socklen_t)name_size,
                                 .msg_iov = &piece, .msg_iovlen = 1,
                                 .msg_control = messages.bytes, .msg_controllen = control_size};
        if (part > row) message.msg_controllen += CMSG_SPACE(sizeof(uint16_t));
        if (message.msg_controllen == 0) message.msg_control = NULL;
        if (sendmsg(fd, &message, MSG_DONTWAIT) < 0) {
            if (errno == EINTR) continue;
            *error = errno;
            break;
        }
        sent += part;
    } while (sent < size);
    return sent;
}

static void read_control(struct msghdr *message, burst_received *r) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        const uint8_t *data = CMSG_DATA(c);
        size_t size = c->cmsg_len - CMSG_LEN(0);
        int number = 0;
        if (size >= sizeof number) memcpy(&number, data, sizeof number);
        if (c->cmsg_level == SOL_UDP_ && c->cmsg_type == UDP_GRO_) {
            if (number > 0) r->row = (uint32_t)number;
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) {
            r->tos = size ? data[0] : 0;
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS) {
            r->tos = (uint32_t)number & 0xff;
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO && size >= sizeof(struct in_pktinfo)) {
            struct in_pktinfo info;
            memcpy(&info, data, sizeof info);
            r->interface = (uint32_t)info.ipi_ifindex;
            r->local_size = 4;
            memcpy(r->local, &info.ipi_spec_dst, 4);
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO && size >= sizeof(struct in6_pktinfo)) {
            struct in6_pktinfo info;
            memcpy(&info, data, sizeof info);
            r->interface = info.ipi6_ifindex;
            r->local_size = 16;
            memcpy(r->local, &info.ipi6_addr, 16);
        }
    }
}

int burst_receive(int fd, uint8_t *data, size_t slot, uint32_t slots, burst_received *received) {
    struct mmsghdr messages[MAX_SLOTS];
    struct iovec pieces[MAX_SLOTS];
    union {
        uint8_t bytes[MAX_CONTROL];
        struct cmsghdr align;
    } control[MAX_SLOTS];
    if (slots > MAX_SLOTS) slots = MAX_SLOTS;
    for (uint32_t i = 0; i < slots; i++) {
        burst_received *r = received + i;
        memset(r, 0, sizeof *r);
        memset(messages + i, 0, sizeof messages[i]);
        pieces[i].iov_base = data + i * slot;
        pieces[i].iov_len = slot;
        messages[i].msg_hdr.msg_name = r->name;
        messages[i].msg_hdr.msg_namelen = sizeof r->name;
        messages[i].msg_hdr.msg_iov = pieces + i;
        messages[i].msg_hdr.msg_iovlen = 1;
        messages[i].msg_hdr.msg_control = control[i].bytes;
        messages[i].msg_hdr.msg_controllen = sizeof control[i].bytes;
    }
    int count;
    do {
        count = recvmmsg(fd, messages, slots, MSG_DONTWAIT, NULL);
    } while (count < 0 && errno == EINTR);
    if (count < 0) return errno == EAGAIN ? 0 : -errno;
    for (int i = 0; i < count; i++) {
        burst_received *r = received + i;
        r->size = r->row = messages[i].msg_len;
        r->name_size = messages[i].msg_hdr.msg_namelen < sizeof r->name ? messages[i].msg_hdr.msg_namelen : sizeof r->name;
        read_control(&messages[i].msg_hdr, r);
    }
    return count;
}
