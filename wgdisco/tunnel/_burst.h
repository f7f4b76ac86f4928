/* What _burst.c offers. Also read as cffi's declarations (_burst_build.py): declarations only, no preprocessor. */

/* One key in one direction, for one thread at a time. NULL when libcrypto has no ChaCha20-Poly1305. */
void *burst_key_new(const uint8_t *key, int seals);
/* Overwrites the key and frees it; NULL is nothing. */
void burst_key_free(void *key);

/* How many rows at the head of `data`, each `row` bytes but for the last, are transport data for the first one's receiver. */
uint32_t burst_run(const uint8_t *data, size_t size, size_t row);

/* Where sealing stands: all zero but `counter` before the first call, and so again after the last. */
typedef struct {
    uint64_t counter;  /* of the next datagram */
    uint32_t frame;    /* the next frame … */
    uint32_t segment;  /* … and the next segment of it */
    uint32_t used;     /* bytes of `out` written by this call */
    uint32_t groups;   /* groups written by this call */
    uint32_t bad;      /* frames left out by this call: their header does not fit them, or counters ran out */
} burst_sealing;

/* Cut each frame (10-byte virtio header and packet, at spans[2i] of `data`, spans[2i+1] bytes) into packets, finish
   their checksums, pad and seal them into `out`, datagram behind datagram. groups[4j…]: start in `out`, size, row size and
   ECN bits of datagrams that can be one send: of one row size, but for a shorter last.
   1: all is done. 0: `out` or `groups` is full; call again with the same `at`. -1: not one datagram fits. */
int burst_seal(void *key, const uint8_t *data, size_t data_size, const uint32_t *spans, uint32_t frames,
               uint32_t receiver, uint32_t mtu, uint8_t *out, size_t out_size, uint32_t *groups, uint32_t max_groups,
               burst_sealing *at);

typedef struct {
    uint64_t first;       /* counter of the first row that authenticated */
    uint32_t authentic;   /* rows that authenticated */
    uint32_t consecutive; /* whether their counters run from `first` upward, one by one */
    uint32_t forged;      /* rows that did not */
    uint32_t refused;     /* rows left out because they were to be */
    uint32_t keepalives;  /* authentic rows without a packet */
    uint32_t bad;         /* authentic rows whose content is no IP packet */
    uint32_t frames;
    uint32_t runs;
} burst_opened;

/* Open the datagrams of `data`, each `row` bytes but for the last, into frames in `out`, of which the first `used` bytes
   are left alone and at least `size` more are there:
   frame i has spans[2i+1] bytes at spans[2i], and runs[j] is how many in a row share a source address. Packets of one
   flow are merged where `merge` (1: TCP, 2: UDP) says so. Rows i with refused[i] are left out (NULL: none). ecn: what
   the outer header said. counters[i] and forged[i] are told for every row. The arrays must hold an entry a row, spans two.
   How many frames there are, if they are of one source and every row authenticated, had a packet in it, and counted on
   from the one before; 0 if it is not as simple as that, and -1 when an argument is impossible. */
int burst_open(void *key, const uint8_t *data, size_t size, size_t row, const uint8_t *refused, int merge, int ecn,
               uint8_t *out, size_t used, size_t out_size, uint32_t *spans, uint32_t *runs, uint64_t *counters,
               uint8_t *forged, uint32_t max_rows, burst_opened *result);

/* What a session counts: the next counter to send with, and which were received (RFC 6479, 8192 bits). All zero at first. */
typedef struct {
    uint64_t next_sent;
    uint64_t next_received; /* one more than the greatest accepted */
    uint64_t words[128];
    uint32_t lane;          /* whether its packets may take a lane (_lanes.h) */
} burst_counters;

/* Whether a counter that authenticated is new and in the window; it then counts as seen (rule R2). */
int burst_accept(burst_counters *counters, uint64_t counter);
/* Accept `count` counters from `first` upward at once, if all are beyond every one before; else 0, and nothing changes. */
int burst_accept_run(burst_counters *counters, uint64_t first, uint64_t count);

/* Whether an IP packet of at least 20 bytes is WireGuard's own, or may be a part of such a one (nesting.py). */
int burst_nested(const uint8_t *packet, size_t size);

/* The system calls of the data path, as many as there is work for (_burst_io.c). None waits. */

/* Read frames of a TUN interface into `data`, behind one another, while `largest` bytes are free: frame i has spans[2i+1]
   bytes at spans[2i]. runs[j], *run_count of them, is how many in a row are alike in what an outer header is made of:
   destination, traffic class, protocol, hop limit. How many frames; -errno when there is none and nothing to wait for. */
int burst_read(int fd, uint8_t *data, size_t size, size_t largest, uint32_t *spans, uint32_t max_frames,
               uint32_t *runs, uint32_t *run_count);

/* Write frames to a TUN interface. How many were written before the first that failed, with *error its errno or 0. */
int burst_write(int fd, const uint8_t *data, size_t data_size, const uint32_t *spans, uint32_t frames, int *error);

/* Send datagrams of `row` bytes, the last of what is left, to the socket address `name`, up to `segments` in one call
   (UDP_SEGMENT). `control`: more control messages. How many bytes were sent before one failed, with *error its errno or 0. */
size_t burst_send(int fd, const uint8_t *name, size_t name_size, const uint8_t *control, size_t control_size,
                  const uint8_t *data, size_t size, size_t row, size_t segments, int *error);

typedef struct {
    uint32_t size;       /* bytes received … */
    uint32_t row;        /* … in datagrams of so many, but for the last */
    uint32_t tos;        /* traffic class */
    uint32_t interface;  /* that they came in by; 0 when not told */
    uint32_t local_size; /* bytes of `local`: 4, 16, or 0 when not told */
    uint32_t name_size;  /* bytes of `name` */
    uint8_t local[16];   /* the address of ours they came to */
    uint8_t name[28];    /* the socket address they came from */
} burst_received;

/* Receive up to `slots` times into data[i * slot], `slot` bytes each. How many; -errno when none and nothing to wait for. */
int burst_receive(int fd, uint8_t *data, size_t slot, uint32_t slots, burst_received *received);
