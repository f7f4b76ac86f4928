/* What _burst.c offers. Also read as cffi's declarations (_burst_build.py): declarations only, no preprocessor. */

/* One key in one direction, for one thread at a time. NULL when libcrypto has no ChaCha20-Poly1305. */
void *burst_key_new(const uint8_t *key, int seals);
/* Overwrites the key and frees it; NULL is nothing. */
void burst_key_free(void *key);

/* How many rows at the head of `data`, each `row` bytes but for the last, are transport data for the first one's receiver. */
uint32_t burst_run(const uint8_t *data, size_t size, size_t row);

/* Where sealing stands. Set frame and segment to 0 and counter to the first before the first call. */
typedef struct {
    uint64_t counter;  /* of the next datagram */
    uint32_t frame;    /* the next frame … */
    uint32_t segment;  /* … and the next segment of it */
    uint32_t used;     /* bytes of `out` written by this call */
    uint32_t groups;   /* groups written by this call */
    uint32_t bad;      /* frames left out so far: their header does not fit them, or counters ran out */
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
    uint32_t bad;         /* authentic rows whose content is no IP packet, or is not ECN-capable and came marked */
    uint32_t frames;
    uint32_t runs;
} burst_opened;

/* Open the datagrams of `data`, each `row` bytes but for the last, into frames in `out` (of at least `size` bytes):
   frame i has spans[2i+1] bytes at spans[2i], and runs[j] is how many in a row share a source address. Packets of one
   flow are merged where `merge` (1: TCP, 2: UDP) says so. Rows i with refused[i] are left out (NULL: none). ecn: what
   the outer header said. counters[i] and forged[i] are told for every row. The arrays must hold an entry a row, spans two.
   0, or -1 when an argument is impossible; then nothing is written. */
int burst_open(void *key, const uint8_t *data, size_t size, size_t row, const uint8_t *refused, int merge, int ecn,
               uint8_t *out, size_t out_size, uint32_t *spans, uint32_t *runs, uint64_t *counters, uint8_t *forged,
               uint32_t max_rows, burst_opened *result);
