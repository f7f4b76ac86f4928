/* The data path's inner loop: one call seals or opens a whole burst.

   It does byte for byte what reference.py and segment.py do, which are the ones to read first, and holds no state but
   what it is handed. Nothing it reads is believed: every length and offset is checked before use, and no row is left. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <openssl/evp.h>

#include "_burst.h"

/* Sums are the hot part beside the cipher: the compiler makes one version per vector width, the loader picks. */
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(FUZZING)
#define WIDE __attribute__((target_clones("avx2", "default")))
#else
#define WIDE
#endif

enum { VIRTIO = 10, HEADER = 16, TAG = 16, PAD = 16, MAX_PACKET = 65535, MAX_HEADERS = 40 + 60 };
enum { NEEDS_CSUM = 1 };
enum { GSO_NONE = 0, GSO_TCP4 = 1, GSO_TCP6 = 4, GSO_UDP = 5, GSO_ECN = 0x80 };
enum { TCP = 6, UDP = 17 };
enum { FIN = 1, PSH = 8, ACK = 16, CWR = 128 };
enum { MERGE_TCP = 1, MERGE_UDP = 2 };
static const uint64_t REJECT_AFTER_MESSAGES = UINT64_MAX - 8128 - 1;

/* Bytes */

static uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static uint32_t get32(const uint8_t *p) { return (uint32_t)get16(p) << 16 | get16(p + 2); }

static void put16(uint8_t *p, uint32_t value) {
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static void put32(uint8_t *p, uint32_t value) {
    put16(p, value >> 16);
    put16(p + 2, value);
}

static uint32_t little32(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t little64(const uint8_t *p) { return little32(p) | (uint64_t)little32(p + 4) << 32; }

static void put_little(uint8_t *p, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) p[i] = (uint8_t)(value >> 8 * i);
}

static uint16_t native16(const uint8_t *p) {
    uint16_t value;
    memcpy(&value, p, 2);
    return value;
}

/* Checksums (RFC 1071). A sum is of native words: the order of bytes does not matter until it is stored. */

WIDE static uint64_t sum(const uint8_t *p, size_t size) {
    uint64_t total = 0;
    size_t words = size / 4;
    uint32_t word;
    for (size_t i = 0; i < words; i++) {
        memcpy(&word, p + 4 * i, 4);
        total += word;
    }
    word = 0;
    memcpy(&word, p + 4 * words, size % 4);
    return total + word;
}

WIDE static uint64_t copy_and_sum(uint8_t *restrict to, const uint8_t *restrict from, size_t size) {
    uint64_t total = 0;
    size_t words = size / 4;
    uint32_t word;
    for (size_t i = 0; i < words; i++) {
        memcpy(&word, from + 4 * i, 4);
        memcpy(to + 4 * i, &word, 4);
        total += word;
    }
    word = 0;
    memcpy(&word, from + 4 * words, size % 4);
    memcpy(to + 4 * words, from + 4 * words, size % 4);
    return total + word;
}

static uint16_t fold(uint64_t total) {
    total = (total & 0xffffffff) + (total >> 32);
    total = (total & 0xffffffff) + (total >> 32);
    total = (total & 0xffff) + (total >> 16);
    total = (total & 0xffff) + (total >> 16);
    return (uint16_t)total;
}

/* A 16-bit number in network order, as the word it is in memory */
static uint64_t word16(uint32_t value) {
    uint8_t bytes[2];
    put16(bytes, value);
    return native16(bytes);
}

static void put_sum(uint8_t *p, uint16_t word) { memcpy(p, &word, 2); }

/* Addresses, protocol and length: what TCP's and UDP's checksums cover beside themselves */
static uint64_t pseudo_sum(const uint8_t *packet, int v4, int protocol, size_t size) {
    uint64_t addresses = v4 ? sum(packet + 12, 8) : sum(packet + 8, 32);
    return addresses + word16((uint32_t)protocol) + word16((uint32_t)size);
}

/* Keys */

void *burst_key_new(const uint8_t *key, int seals) {
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    if (context && EVP_CipherInit_ex(context, EVP_chacha20_poly1305(), NULL, key, NULL, seals) != 1) {
        EVP_CIPHER_CTX_free(context);
        context = NULL;
    }
    return context;
}

void burst_key_free(void *key) { EVP_CIPHER_CTX_free(key); }

/* Counters: what replay.py does */

enum { WORDS = 128, WINDOW = 8128 };

int burst_accept(burst_counters *c, uint64_t counter) {
    if (counter >= REJECT_AFTER_MESSAGES || counter + 1 + WINDOW < c->next_received) return 0;
    uint64_t word = counter >> 6, bit = (uint64_t)1 << (counter & 63);
    if (counter >= c->next_received) {
        uint64_t newest = c->next_received ? (c->next_received - 1) >> 6 : 0;
        uint64_t steps = word - newest < WORDS ? word - newest : WORDS;
        for (uint64_t step = 1; step <= steps; step++) c->words[(newest + step) % WORDS] = 0;
        c->next_received = counter + 1;
    }
    if (c->words[word % WORDS] & bit) return 0;
    c->words[word % WORDS] |= bit;
    return 1;
}

int burst_accept_run(burst_counters *c, uint64_t first, uint64_t count) {
    if (first < c->next_received || count == 0 || first >= REJECT_AFTER_MESSAGES ||
        count > REJECT_AFTER_MESSAGES - first)
        return 0;
    for (uint64_t i = 0; i < count; i++) burst_accept(c, first + i);
    return 1;
}

/* Runs */

uint32_t burst_run(const uint8_t *data, size_t size, size_t row) {
    uint32_t rows = 0;
    if (row == 0) return 0;
    for (size_t start = 0; start < size; start += row, rows++) {
        size_t bytes = size - start < row ? size - start : row;
        if (bytes < HEADER + TAG || little32(data + start) != 4 || memcmp(data + start, data, 8) != 0) break;
    }
    return rows;
}

/* Sealing */

/* How a packet is to be cut */
typedef struct {
    size_t header;  /* bytes at the head of every segment; 0 when it is not cut */
    size_t l4;      /* where TCP or UDP begins */
    size_t step;    /* payload bytes in a segment */
    uint32_t count; /* segments */
    int protocol, v4, needs_sum;
    size_t sum_start, sum_at;
} cut;

/* Fill `c`; 0 when the frame's virtio header cannot be meant for its packet (rules S1 and S2). */
static int plan(const uint8_t *frame, size_t size, cut *c) {
    const uint8_t *packet = frame + VIRTIO;
    int kind = frame[1] & ~GSO_ECN;
    size -= VIRTIO;
    memset(c, 0, sizeof *c);
    c->needs_sum = frame[0] & NEEDS_CSUM;
    c->sum_start = native16(frame + 6);
    c->sum_at = c->sum_start + native16(frame + 8);
    if ((c->needs_sum && c->sum_at + 2 > size) || size > MAX_PACKET) return 0;
    if (kind == GSO_NONE) {
        c->step = size;
        c->count = 1;
        return 1;
    }
    c->step = native16(frame + 4);
    if (!c->needs_sum || c->step == 0 || size < 20) return 0;
    c->l4 = c->sum_start;
    c->v4 = packet[0] >> 4 == 4;
    if (c->v4) {
        if (c->l4 < 20 || c->l4 != (size_t)(packet[0] & 15) * 4) return 0;
        c->protocol = packet[9];
    } else {
        if (packet[0] >> 4 != 6 || c->l4 < 40) return 0;
        c->protocol = kind == GSO_UDP ? UDP : TCP; /* behind extension headers it is not in the first */
        if (c->l4 == 40 && packet[6] != c->protocol) return 0;
    }
    if (kind == GSO_UDP) {
        if (c->protocol != UDP || c->sum_at != c->l4 + 6) return 0;
        c->header = c->l4 + 8;
    } else {
        if (kind != (c->v4 ? GSO_TCP4 : GSO_TCP6) || c->protocol != TCP || c->sum_at != c->l4 + 16) return 0;
        size_t tcp = (size_t)(packet[c->l4 + 12] >> 4) * 4; /* inside, as the checksum behind it is */
        if (tcp < 20) return 0;
        c->header = c->l4 + tcp;
    }
    if (c->header > size) return 0;
    size_t payload = size - c->header;
    c->count = payload ? (uint32_t)((payload + c->step - 1) / c->step) : 1;
    return 1;
}

static size_t segment_size(const cut *c, size_t size, uint32_t i) {
    size_t start = c->header + c->step * i;
    return c->header + (size - start < c->step ? size - start : c->step);
}

/* Write segment `i` of a packet of `size` bytes to `to`, which has room for segment_size() bytes (rules S1 and S3). */
static void write_segment(const cut *c, const uint8_t *packet, size_t size, uint32_t i, uint8_t *to) {
    if (!c->header) {
        memcpy(to, packet, size);
        if (c->needs_sum) {
            uint16_t word = (uint16_t)~fold(sum(to + c->sum_start, size - c->sum_start));
            put_sum(to + c->sum_at, word ? word : 0xffff);
        }
        return;
    }
    size_t whole = segment_size(c, size, i), l4_size = whole - c->l4;
    uint8_t *l4 = to + c->l4;
    memcpy(to, packet, c->header);
    if (c->v4) {
        put16(to + 2, (uint32_t)whole);
        put16(to + 4, get16(to + 4) + i);
        put_sum(to + 10, 0);
        put_sum(to + 10, (uint16_t)~fold(sum(to, c->l4)));
    } else {
        put16(to + 4, (uint32_t)(whole - 40));
    }
    if (c->protocol == TCP) {
        put32(l4 + 4, get32(l4 + 4) + (uint32_t)(c->step * i));
        if (i + 1 < c->count) l4[13] &= (uint8_t)~(FIN | PSH);
        if (i > 0) l4[13] &= (uint8_t)~CWR;
    } else {
        put16(l4 + 4, (uint32_t)l4_size);
    }
    put_sum(to + c->sum_at, 0);
    uint64_t total = pseudo_sum(packet, c->v4, c->protocol, l4_size) + sum(l4, c->header - c->l4);
    total += copy_and_sum(to + c->header, packet + c->header + c->step * i, whole - c->header);
    uint16_t word = (uint16_t)~fold(total);
    put_sum(to + c->sum_at, word == 0 && c->protocol == UDP ? 0xffff : word);
}

/* The size after padding to 16 bytes, never past the MTU (rule D4) */
static size_t padded(size_t size, size_t mtu) {
    if (mtu == 0) return size;
    size_t last = size > mtu ? size % mtu : size;
    size_t full = (last + PAD - 1) / PAD * PAD;
    return size - last + (full < mtu ? full : mtu);
}

static int encrypt(EVP_CIPHER_CTX *context, uint8_t *row, size_t plain, uint32_t receiver, uint64_t counter) {
    uint8_t nonce[12] = {0}, *text = row + HEADER;
    int size;
    put_little(row, 4, 4);
    put_little(row + 4, receiver, 4);
    put_little(row + 8, counter, 8);
    memcpy(nonce + 4, row + 8, 8);
    return EVP_EncryptInit_ex(context, NULL, NULL, NULL, nonce) == 1 &&
           (plain == 0 || EVP_EncryptUpdate(context, text, &size, text, (int)plain) == 1) &&
           EVP_EncryptFinal_ex(context, text + plain, &size) == 1 &&
           EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, TAG, text + plain) == 1;
}

/* The ECN field for the outer header: the inner one's, and ECT(0) for CE, as the kernel does it. */
static uint32_t outer_ecn(const uint8_t *packet, size_t size) {
    int version = size >= 20 ? packet[0] >> 4 : 0;
    uint32_t ecn = version == 4 ? packet[1] & 3 : version == 6 ? packet[1] >> 4 & 3 : 0;
    return ecn == 3 ? 2 : ecn;
}

/* Note a datagram of `size` bytes at `start`; 0 when it takes another group and there is no room for one. */
static int add_to_group(uint32_t *groups, uint32_t max_groups, uint32_t *count, uint32_t start, uint32_t size,
                        uint32_t ecn) {
    if (*count) {
        uint32_t *last = groups + 4 * (size_t)(*count - 1);
        if (size <= last[2] && last[1] % last[2] == 0 && ecn == last[3]) {
            last[1] += size;
            return 1;
        }
    }
    if (*count == max_groups) return 0;
    uint32_t *group = groups + 4 * (size_t)(*count)++;
    group[0] = start;
    group[1] = group[2] = size;
    group[3] = ecn;
    return 1;
}

static int fail(burst_sealing *at) {
    at->frame = at->segment = 0;
    return -1;
}

int burst_seal(void *key, const uint8_t *data, size_t data_size, const uint32_t *spans, uint32_t frames,
               uint32_t receiver, uint32_t mtu, uint8_t *out, size_t out_size, uint32_t *groups, uint32_t max_groups,
               burst_sealing *at) {
    at->used = at->groups = at->bad = 0;
    if (!key) return -1;
    if (out_size > UINT32_MAX) out_size = UINT32_MAX;
    for (; at->frame < frames; at->frame++, at->segment = 0) {
        size_t start = spans[2 * (size_t)at->frame], size = spans[2 * (size_t)at->frame + 1];
        cut c;
        if (size < VIRTIO || start > data_size || size > data_size - start || !plan(data + start, size, &c)) {
            at->bad++;
            continue;
        }
        const uint8_t *packet = data + start + VIRTIO;
        size -= VIRTIO;
        uint32_t ecn = outer_ecn(packet, size);
        for (; at->segment < c.count; at->segment++, at->counter++) {
            if (at->counter >= REJECT_AFTER_MESSAGES) {
                at->bad++;
                break;
            }
            size_t plain = segment_size(&c, size, at->segment), text = padded(plain, mtu);
            size_t row = HEADER + text + TAG;
            if (row > out_size - at->used ||
                !add_to_group(groups, max_groups, &at->groups, at->used, (uint32_t)row, ecn))
                return at->used || at->bad ? 0 : fail(at);
            uint8_t *to = out + at->used;
            write_segment(&c, packet, size, at->segment, to + HEADER);
            memset(to + HEADER + plain, 0, text - plain);
            if (!encrypt(key, to, text, receiver, at->counter)) return fail(at);
            at->used += (uint32_t)row;
        }
    }
    at->frame = 0;
    return 1;
}

/* Opening */

/* A packet, and what the next one of its flow must have */
typedef struct {
    size_t start;   /* in `out`; its virtio header is before it */
    size_t size;    /* in bytes */
    size_t ip;      /* of its IP header */
    size_t header;  /* of all its headers */
    size_t step;    /* of the payload of its first segment; 0: it cannot be merged */
    uint32_t count; /* segments */
    uint32_t seq;   /* of TCP, of the next packet */
    uint16_t id;    /* of IPv4, of the next packet */
    uint8_t v4, tcp, push;
    uint8_t closed; /* nothing more may be merged with it */
} flow;

static int decrypt(EVP_CIPHER_CTX *context, const uint8_t *row, size_t plain, uint8_t *to) {
    uint8_t nonce[12] = {0}, tag[TAG], nothing[16];
    int size;
    memcpy(nonce + 4, row + 8, 8);
    memcpy(tag, row + HEADER + plain, TAG);
    return EVP_DecryptInit_ex(context, NULL, NULL, NULL, nonce) == 1 &&
           EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, TAG, tag) == 1 &&
           (plain == 0 || EVP_DecryptUpdate(context, to, &size, row + HEADER, (int)plain) == 1) &&
           EVP_DecryptFinal_ex(context, nothing, &size) == 1;
}

/* The size of an IP packet without its padding; 0 when it is none (rule D6). */
static size_t inner_size(const uint8_t *packet, size_t size) {
    if (size >= 20 && packet[0] >> 4 == 4) {
        size_t total = get16(packet + 2);
        return total >= 20 && total <= size ? total : 0;
    }
    if (size >= 40 && packet[0] >> 4 == 6) {
        size_t total = 40 + (size_t)get16(packet + 4);
        return total <= size ? total : 0;
    }
    return 0;
}

/* Note in the packet what the outer header's ECN field says (RFC 6040). */
static void decapsulate_ecn(uint8_t *packet, int outer) {
    int v4 = packet[0] >> 4 == 4, shift = v4 ? 0 : 4;
    int inner = packet[1] >> shift & 3;
    if (inner == 0 || !(outer == 3 || (outer == 1 && inner == 2))) return;
    uint16_t before = get16(packet);
    packet[1] = (uint8_t)((packet[1] & ~(3 << shift)) | outer << shift);
    if (v4) { /* RFC 1624: what was wrong stays wrong */
        uint32_t total = (uint16_t)~get16(packet + 10) + (uint32_t)(uint16_t)~before + get16(packet);
        total = (total & 0xffff) + (total >> 16);
        put16(packet + 10, (uint16_t) ~((total & 0xffff) + (total >> 16)));
    }
}

/* What a packet of `size` bytes is, and whether it may be merged: `step` is 0 when not (rule S9). */
static void classify(const uint8_t *packet, size_t size, int merge, flow *f) {
    memset(f, 0, sizeof *f);
    f->size = size;
    f->count = 1;
    f->v4 = packet[0] >> 4 == 4;
    f->ip = f->v4 ? 20 : 40;
    if (f->v4 && (packet[0] != 0x45 || (get16(packet + 6) & 0x3fff) != 0)) return;
    int protocol = f->v4 ? packet[9] : packet[6];
    const uint8_t *l4 = packet + f->ip;
    size_t l4_size = size - f->ip;
    if (protocol == TCP && merge & MERGE_TCP && l4_size > 20) {
        size_t tcp = (size_t)(l4[12] >> 4) * 4;
        if (tcp < 20 || tcp >= l4_size || (l4[13] & ~PSH) != ACK) return;
        f->tcp = 1;
        f->push = (l4[13] & PSH) != 0;
        f->header = f->ip + tcp;
        f->seq = get32(l4 + 4) + (uint32_t)(size - f->header);
    } else if (protocol == UDP && merge & MERGE_UDP && l4_size > 8) {
        if (get16(l4 + 4) != l4_size || get16(l4 + 6) == 0) return;
        f->header = f->ip + 8;
    } else {
        return;
    }
    f->id = (uint16_t)(get16(packet + 4) + 1);
    f->step = size - f->header;
}

/* Whether packet `b`, which is `g`, differs from `a`, which is `f`, in nothing but what differs between the segments of
   one large packet (rule S9) */
static int continues(const uint8_t *a, const flow *f, const uint8_t *b, const flow *g) {
    if (!g->step || f->v4 != g->v4 || f->tcp != g->tcp || f->header != g->header) return 0;
    if (g->step > f->step || f->size + g->step > MAX_PACKET) return 0;
    if (f->v4) {
        if (memcmp(a, b, 2) != 0 || memcmp(a + 6, b + 6, 4) != 0 || memcmp(a + 12, b + 12, 8) != 0) return 0;
        if (!(a[6] & 0x40) && get16(b + 4) != f->id) return 0; /* without DF the identification means something */
    } else if (memcmp(a, b, 4) != 0 || memcmp(a + 6, b + 6, 34) != 0) {
        return 0;
    }
    const uint8_t *m = a + f->ip, *n = b + f->ip;
    if (memcmp(m, n, 4) != 0) return 0;
    if (!f->tcp) return 1;
    return get32(n + 4) == f->seq && memcmp(m + 8, n + 8, 5) == 0 && memcmp(m + 14, n + 14, 2) == 0 &&
           memcmp(m + 18, n + 18, f->header - f->ip - 18) == 0;
}

/* Both checksums of a packet that classify() found mergeable; its payload may lie elsewhere than behind its headers. */
static int verify(const uint8_t *headers, const uint8_t *payload, const flow *f) {
    if (f->v4 && fold(sum(headers, 20)) != 0xffff) return 0;
    uint64_t total = pseudo_sum(headers, f->v4, f->tcp ? TCP : UDP, f->size - f->ip);
    total += sum(headers + f->ip, f->header - f->ip) + sum(payload, f->size - f->header);
    return fold(total) == 0xffff;
}

/* Write the virtio header of a packet in `out`, and what changes in it because it is several (rule S10). */
static void finish(uint8_t *out, const flow *f) {
    uint8_t *packet = out + f->start, *virtio = packet - VIRTIO;
    memset(virtio, 0, VIRTIO);
    if (f->count == 1) return;
    uint8_t *l4 = packet + f->ip;
    size_t l4_size = f->size - f->ip;
    uint16_t numbers[4] = {(uint16_t)f->header, (uint16_t)f->step, (uint16_t)f->ip, (uint16_t)(f->tcp ? 16 : 6)};
    virtio[0] = NEEDS_CSUM;
    virtio[1] = (uint8_t)(!f->tcp ? GSO_UDP : f->v4 ? GSO_TCP4 : GSO_TCP6);
    memcpy(virtio + 2, numbers, sizeof numbers);
    if (f->v4) {
        put16(packet + 2, (uint32_t)f->size);
        put_sum(packet + 10, 0);
        put_sum(packet + 10, (uint16_t)~fold(sum(packet, 20)));
    } else {
        put16(packet + 4, (uint32_t)(f->size - 40));
    }
    if (f->tcp)
        l4[13] |= f->push ? PSH : 0;
    else
        put16(l4 + 4, (uint32_t)l4_size);
    put_sum(l4 + numbers[3], fold(pseudo_sum(packet, f->v4, f->tcp ? TCP : UDP, l4_size)));
}

static int same_source(const uint8_t *a, const uint8_t *b) {
    if (a[0] >> 4 != b[0] >> 4) return 0;
    return a[0] >> 4 == 4 ? memcmp(a + 12, b + 12, 4) == 0 : memcmp(a + 8, b + 8, 16) == 0;
}

/* What is being written: frames behind one another, the last one still growing. */
typedef struct {
    uint8_t *out;
    size_t end;
    flow last; /* of the last frame */
    int merge, ecn;
    uint32_t *spans, *runs;
    burst_opened *result;
} writer;

/* The packet at out[end + VIRTIO] is a frame of its own, for now. */
static void begin(writer *w, const flow *f) {
    burst_opened *r = w->result;
    if (r->frames) finish(w->out, &w->last);
    if (r->frames && same_source(w->out + w->last.start, w->out + w->end + VIRTIO))
        w->runs[r->runs - 1]++;
    else
        w->runs[r->runs++] = 1;
    w->last = *f;
    w->last.start = w->end + VIRTIO;
    w->last.closed = f->step == 0 || f->push;
    w->spans[2 * (size_t)r->frames] = (uint32_t)w->end;
    w->spans[2 * (size_t)r->frames + 1] = (uint32_t)(VIRTIO + f->size);
    r->frames++;
    w->end = w->last.start + f->size;
}

/* The packet `f`, whose payload is at out[end], becomes part of the last frame. */
static void grow(writer *w, const flow *f) {
    flow *last = &w->last;
    last->count++;
    last->size += f->step;
    last->seq = f->seq;
    last->id = f->id;
    last->push = f->push;
    last->closed = f->step < last->step || f->push;
    w->spans[2 * (size_t)(w->result->frames - 1) + 1] += (uint32_t)f->step;
    w->end += f->step;
}

/* Whether a packet is part of the last frame: by its headers and, then only, by both its checksums. */
static int joins(writer *w, const uint8_t *headers, const flow *f) {
    flow *last = &w->last;
    const uint8_t *front = w->out + last->start;
    if (!continues(front, last, headers, f)) return 0;
    if (last->count == 1 && !verify(front, front + last->header, last)) {
        last->closed = 1;
        return 0;
    }
    return verify(headers, w->out + w->end, f);
}

/* Open one row; 0 when it does not authenticate. It is decrypted to where its payload belongs if it continues the last
   frame: its headers then lie over the end of that frame, and what was there is put back at once. */
static int open_row(EVP_CIPHER_CTX *context, const uint8_t *row, size_t plain, writer *w) {
    uint8_t aside[MAX_HEADERS], headers[MAX_HEADERS];
    flow *last = &w->last, f;
    size_t over = w->result->frames && !last->closed && plain > last->header ? last->header : 0;
    uint8_t *end = w->out + w->end, *packet = over ? end - over : end + VIRTIO;
    memcpy(aside, packet, over);
    int authentic = decrypt(context, row, plain, packet);
    size_t size = authentic ? inner_size(packet, plain) : 0;
    if (size && w->ecn) decapsulate_ecn(packet, w->ecn);
    if (size) classify(packet, size, w->merge, &f);
    memcpy(headers, packet, over);
    memcpy(packet, aside, over);
    if (!size) {
        w->result->keepalives += authentic && plain == 0;
        w->result->bad += authentic && plain != 0;
    } else if (over && f.header == over && joins(w, headers, &f)) {
        grow(w, &f);
    } else {
        if (over && size > over) memmove(end + VIRTIO + over, end, size - over);
        if (over) memcpy(end + VIRTIO, headers, size < over ? size : over);
        begin(w, &f);
    }
    return authentic;
}

int burst_open(void *key, const uint8_t *data, size_t size, size_t row, const uint8_t *refused, int merge, int ecn,
               uint8_t *out, size_t used, size_t out_size, uint32_t *spans, uint32_t *runs, uint64_t *counters,
               uint8_t *forged, uint32_t max_rows, burst_opened *result) {
    memset(result, 0, sizeof *result);
    if (!key || row == 0 || used > out_size || size > out_size - used || out_size > UINT32_MAX ||
        (size + row - 1) / row > max_rows)
        return -1;
    writer w = {.out = out, .end = used, .merge = merge, .ecn = ecn & 3, .spans = spans, .runs = runs,
                .result = result};
    result->consecutive = 1;
    for (size_t start = 0, i = 0; start < size; start += row, i++) {
        const uint8_t *datagram = data + start;
        size_t bytes = size - start < row ? size - start : row;
        int whole = bytes >= HEADER + TAG && little32(datagram) == 4;
        forged[i] = 0;
        counters[i] = whole ? little64(datagram + 8) : 0;
        if (refused && refused[i]) {
            result->refused++;
        } else if (!whole || !open_row(key, datagram, bytes - HEADER - TAG, &w)) {
            forged[i] = 1;
            result->forged++;
        } else {
            if (!result->authentic) result->first = counters[i];
            if (counters[i] != result->first + result->authentic) result->consecutive = 0;
            result->authentic++;
        }
    }
    if (result->frames) finish(out, &w.last);
    int plain = result->runs == 1 && result->consecutive && !result->forged && !result->refused &&
                !result->keepalives && !result->bad;
    return plain ? (int)result->frames : 0;
}
