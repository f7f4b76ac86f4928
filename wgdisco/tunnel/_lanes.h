/* What _lanes.c offers; as _burst.h, also cffi's declarations.

   A lane is what one session's packets may do while Python sleeps: be sealed and sent to where they went before, be
   opened and delivered as they were before. Python gives it, fills it in, and takes it back by counters->lane; whatever is
   in the least out of the ordinary is left to it. Nothing here outlives a call but what it is handed. */

typedef struct {
    void *seals, *opens;         /* keys, in libcrypto */
    burst_counters *counters;
    double until;                /* not used from then on: seconds of CLOCK_BOOTTIME */
    uint32_t index, remote;      /* receiver indices: ours, and the other side's */
    uint32_t mtu;                /* what padding never passes */
    uint32_t row_bytes;          /* most bytes that one send may take in segments; 0 where it must be one by one */
    int32_t fd;                  /* the socket */
    uint32_t name_size, local_size, interface;
    uint8_t name[28];            /* where it sends to, and what it hears must come from */
    uint8_t local[16];           /* the address of ours that it must have come to, of `interface` */
    uint32_t control_size[3];
    uint8_t control[3][64];      /* control messages, by the ECN field */
    uint32_t waits;              /* whether something came in since something went out */

    /* Since it was last looked at; times are of CLOCK_BOOTTIME, and 0 for none */
    uint64_t tx_bytes, rx_bytes; /* of datagrams */
    uint64_t bad_frames, forged, replayed, bad_packets;
    double sent_at, received_at; /* the last of each */
    double unanswered_at;        /* the first that was sent after the last that came */
    double waiting_at;           /* the first with a packet that came after the last that was sent */
    uint32_t more_came;          /* whether another came while `waits` */
    uint32_t used;               /* whether any of this is not zero */
} burst_lane;

typedef struct {
    uint32_t lane;       /* of the peer that has this address: its receiver index */
    uint32_t size;       /* 4 or 16; 0: none */
    uint8_t address[16];
} burst_route;

enum { BURST_LANES = 4096, BURST_ROUTES = 4096, BURST_USED = 1024 };
enum { LEFT_FRAMES = 1, LEFT_DATAGRAMS = 2, LEFT_SEALED = 4, LEFT_OPENED = 8 };

typedef struct {
    int32_t tun, sockets[2];            /* -1: none */
    uint32_t merge;                     /* as burst_open's */
    double slept;                       /* what CLOCK_BOOTTIME may be ahead of CLOCK_MONOTONIC, at most */

    /* Memory of whoever reads and receives otherwise, and of its own */
    uint8_t *frames;
    size_t frames_size, largest;
    uint32_t *frame_spans, *frame_runs;
    uint32_t max_frames;
    uint8_t *datagrams;
    burst_received *received;
    size_t slot;
    uint32_t slots;
    uint8_t *out;                       /* sealed datagrams, or opened frames */
    size_t out_size;
    uint32_t *groups, max_groups;       /* as burst_seal's */
    uint32_t *spans, *runs;             /* as burst_open's, … */
    uint64_t *counters;
    uint8_t *forged, *refused;
    uint32_t max_rows;                  /* … which have so many entries */

    burst_lane *lanes[BURST_LANES];     /* by their index, its low bits */
    burst_route routes[BURST_ROUTES];
    burst_lane *used[BURST_USED];       /* lanes with something to look at */
    uint32_t used_count;

    uint32_t left;                      /* LEFT_…: what is to be done by Python before the next call */
    int32_t frame_count;                /* frames read; -errno of the read */
    uint32_t frame_run_count, frame_first, frame_run; /* left from this frame on, which begins this run */
    int32_t received_count;             /* bursts received; -errno */
    uint32_t received_first;            /* left from this one on */
    int32_t received_fd;
    burst_lane *by;                     /* whose sealed or opened ones were left */
    uint32_t group_count, group_first;  /* sealed groups, left from this one on */
    uint32_t run_count, run_first, opened_first; /* opened runs, left from this one on, which begins with this frame */
} burst_table;

/* What epoll said of a descriptor */
typedef struct {
    int32_t fd;
    uint32_t events;
} burst_event;

/* Have no lanes, and bring no address to one. */
void burst_clear_lanes(burst_table *table);

/* Bring an address's packets to the lane of that index. */
void burst_add_route(burst_table *table, const uint8_t *address, uint32_t size, uint32_t lane);

/* Wait as epoll_wait does, and let packets take their lanes meanwhile. Returns what else there is, up to `max`; 0 when the
   time is up, or sooner when lanes have something to tell, or table->left is not 0. */
int burst_wait(burst_table *table, int epoll, int milliseconds, burst_event *events, int max);
