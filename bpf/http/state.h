// State of the HTTP source: what a direction remembers, what a request leaves for its response, and the scratch of one run.
#ifndef HTTP_PENDING
#define HTTP_PENDING 16384       // open requests at once; about 700 bytes each
#endif
#ifndef HTTP_PARTIAL
#define HTTP_PARTIAL 4096        // directions with a head cut between segments at once; about 1 KiB each
#endif
#ifndef HTTP_WINDOW
#define HTTP_WINDOW 2048         // bytes of the frame looked at together, a power of two
#endif
#ifndef HTTP_STEPS
#define HTTP_STEPS 4             // steps of one call of `http_steps`: the verifier walks each, and only once
#endif
#ifndef HTTP_CALLS
#define HTTP_CALLS 20            // such calls of one run: 33 runs a frame hold 64 KiB of messages of 36 bytes
#endif
#ifndef HTTP_FIRST_STEPS
#define HTTP_FIRST_STEPS 8       // steps before the first call: what clients other than browsers send is done with them
#endif
#ifndef HTTP_CHUNKS
#define HTTP_CHUNKS 4            // small chunks of one step
#endif
#ifndef HTTP_WORDS
#define HTTP_WORDS 4             // times 32 bytes looked at in one step
#endif
#define HTTP_SLOTS_A_FLOW 4      // open requests of a flow that reuse their map entry: an insert costs six times as much
#define HTTP_OWN_KEY 0x80000000u
#define HTTP_CARRY ((HTTP_LINE + 24 + 7) / 8 * 8)       // bytes of a line that are ever looked at, and carried from segment to segment
#define HTTP_MASK (2 * HTTP_WINDOW - 1)
_Static_assert(HTTP_CARRY + HTTP_WINDOW <= HTTP_MASK + 1, "line and window fit");

// Phases made of lines come first; then what needs no scan. STOPPED: the connection turns opaque.
enum { START, HEAD, CHUNK_SIZE, CHUNK_EXTENSION, CHUNK_CRLF, TRAILERS, FIXED, CHUNK_DATA, UNTIL_CLOSE, CHUNKS_LOST, DONE, STOPPED, RESYNC };
enum { REQUEST = 1, RESPONSE = 2 };                             // role of a direction
enum { LENGTH = 1, CHUNKED = 2, CODED = 4, SKIP = 8, LONG_START = 16, HTTP = 32, TRACEPARENT = 64, CONFLICT = 128 };     // what was seen. SKIP: drop bytes up to the next line end
enum { H_NONE, H_LENGTH, H_CODING, H_HOST, H_AGENT, H_TRACEPARENT, H_TRACESTATE, H_SLOT, H_CHUNK = 32, UNFINISHED = 64 };     // header in
                                                                // hand, or what else `http_odd` is asked for. UNFINISHED: a length without a digit, so far

struct http_direction {                                         // lies in direction.owner
  u64 body, length;                                             // body bytes given to `left` so far (all of it, or the chunks); announced
  u64 start_ns, last_ns;                                        // when the message began; when it was parsed last
  u32 seq, first, ack;                                          // first byte of the message; of a response with its interim ones; of a request: its acknowledgement
  u32 known;                                                    // requests before the last loss
  u16 line, status;                                             // bytes of an unfinished line in `http_partial`
  u8 phase, seen, header;                                       // header: in hand for a folded line
  u8 alone, flags, cause;                                       // alone: can be an anchor (see pair.h). cause: position is lost, by this HTTP_COUNT_*
  u8 resynchronised, minor, after_loss;
  u8 uncertain, pad[34];                                        // uncertain: flags that the end of the message will get
  // What the other direction reads.
  u32 number, losses;                                           // of the current message; of position so far
  u32 floor, lost_number;                                       // first number after the last loss; of a request: first void number
  u32 healed, healed_other;                                     // of a response: losses of either side that pairing has got over
  u8 role, interim, pipelined, shared_pad[5];
};
_Static_assert(sizeof(struct http_direction) == OWNER_WORDS * 8 && __builtin_offsetof(struct http_direction, number) == OWNER_WORDS * 8 - 32, "fits into the flow");

struct http_pending {                                           // an open request; in the end its record. Whole cache lines
  struct message m;
  u8 req_done, resp_done, early, sent;                          // each of the first two is written by one direction only
  u8 alone, flags, wide, pad;                                   // flags: those of the response. wide: tracestate, or the line behind HTTP_NARROW, is not zero
  struct http_record r;
} __attribute__((aligned(64)));
#define HTTP_NARROW 64           // bytes of the start line that are always copied
#define HTTP_BEFORE (__builtin_offsetof(struct http_pending, r) + __builtin_offsetof(struct http_record, tracestate))      // tracestate lies between ...
#define HTTP_BEHIND (__builtin_offsetof(struct http_pending, r) + __builtin_offsetof(struct http_record, agent))           // ... what is always copied
#define HTTP_END (__builtin_offsetof(struct http_pending, r) + __builtin_offsetof(struct http_record, line) + HTTP_NARROW)
struct http_part { struct http_pending p; u8 line[HTTP_CARRY]; };
struct http_scratch {
  struct http_pending p;                                        // the request whose head is being read ...
  u8 b[2 * HTTP_WINDOW + 1024];                                 // ... and the window. The first HTTP_CARRY bytes: the end of what came before
  struct http_pending out;
  u8 value[512];                                                // digits that are put together
  struct direction d;                                           // of the direction in hand
  struct flow_key key;
  struct message m, pm;                                         // keys of `http_pending` and `http_partial`
  u64 now, last_byte, before, ended_ns, next_left;              // last_byte: when a byte came last; before: the same, before this segment
  u32 zero;                                                     // for ever
  u32 slot;                                                     // of what is kept in `held`
  u32 pos, line, end;                                           // in b: where the scan is, start of the current line, end of the window
  u32 nxt, stop, there;                                         // in the segment: first byte not yet in b, its end, end of what was captured
  u32 base;                                                     // sequence number at offset 0 of the segment
  u32 direction, fin, kept, verdict;                            // kept: the bytes come from `held`
  u32 other_number, other_losses, other_floor, other_lost, other_role, other_pipelined, certain, paired, exact, unseen;
                                                                // of the other direction; certain: so far, the numbers of requests are; paired: of responses too; exact: and
                                                                // all that was acknowledged was seen;
                                                                // unseen: what it sent was acknowledged further than it was seen
  // the line in hand began earlier; it need not be a start line; one may come after a loss; the packet leaves by the tap
  u32 carried, tentative, retry, leaving, ifindex, entered_by_stream, reset, finished, certain_end, begun, last, response, both, status, skipped, partly, same;
  u32 start, nl, eol, cut, from, to, id, k, n, odd, sure, next_phase, field, length, early, ready, load, at;                        // the line in hand; a value in it
};

// (flow, slot or number) -> open request. The longest unused one is evicted; the walk of user space counts it.
BPF_TABLE("lru_hash", struct message, struct http_pending, http_pending, HTTP_PENDING);
// (flow, 1 + direction) -> head cut between segments. The longest unused one is evicted: resync_carry.
BPF_TABLE("lru_hash", struct message, struct http_part, http_partial, HTTP_PARTIAL);
BPF_PERCPU_ARRAY(http_scratch, struct http_scratch, 1);
struct http_counters { u64 n[32]; };                            // for the mask in http_count
BPF_PERCPU_ARRAY(http_counters, struct http_counters, 1);
#ifdef TRANSPORT_HASH
// serial number -> record, walked and emptied by user space. Full: `lost`.
BPF_TABLE("hash", u64, struct http_record, http_records, HTTP_PARKED);
#else
// Records in the order they ended. Full: `lost`.
BPF_RINGBUF_OUTPUT(http_records, HTTP_RING_PAGES);
#endif

static __always_inline struct http_direction *http_of(struct direction *d) { return (struct http_direction *)d->owner; }
// The key lies in the scratch: one on the stack would be another state to the verifier wherever its slot is used again.
static __always_inline void http_count(struct http_scratch *s, u32 i) {
  struct http_counters *c = http_counters.lookup(&s->zero);
  if (c) c->n[i & 31]++;
}
static __always_inline void http_count_once(u32 i) {            // where there is no scratch yet
  u32 zero = 0;
  struct http_counters *c = http_counters.lookup(&zero);
  if (c) c->n[i & 31]++;
}
_Static_assert(HTTP_COUNTERS_MANY <= 32, "fit");
