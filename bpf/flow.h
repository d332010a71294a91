// A connection at a tap's domain and its two directions. Only packets of one direction write that direction's state.
#define OWNER_WORDS 16
struct flow_key { u64 a[2], b[2]; u16 port_a, port_b; u32 domain; };    // a is the lower endpoint

enum { NEW, KNOWN };                                            // stage of a direction: is `next` known?
// Marks of a direction: its FIN was seen; one came before missing bytes; the byte before was not seen; nothing was seen yet; all of `ahead`, of `second` was kept.
enum { ENDED = 1, AHEAD_FIN = 2, AFTER_GAP = 4, FIRST = 8, KEPT_AHEAD = 16, KEPT_SECOND = 32 };

// `entered` and `left` differ by the CPUs that are inside or at the door (outcome.h). acked: what was acknowledged last, bare acknowledgements included while
// a segment is missing.
struct door { u32 entered, left, acked; };

// The connection's entry begins and ends with a cache line (64 bytes), and so do the parts of a direction: what only its own packets look at comes first, what
// those of the other direction read too comes last, so that the CPUs of a client and of its server take no more than one line from each other.
struct direction {
  u64 left;                                                     // bytes that the owner lets pass unseen
  u64 ahead_tail;                                               // the last bytes of the two pieces below
  u32 second, second_end;                                       // sequence numbers of the second piece; equal ends: nothing
  u32 origin;                                                   // sequence number of the first byte of what is kept in `held`
  u32 turns;                                                    // segments that began with something else, while nothing is known
  u64 owner[OWNER_WORDS];                                       // the owner's state of this direction; its last four words lie in the line that both read
  u32 next, ack;                                                // sequence number expected; acknowledgement sent last with data
  u32 ahead, ahead_end;                                         // sequence numbers of what came before missing bytes, in up to two pieces; equal ends: nothing
  u8 stage, marks;
  u16 slot;                                                     // in `held`
  struct door door;                                             // the rest is what an owner may carry away and bring back
};

// Why a connection is not looked at any more. One lookup, then it is left alone.
enum { OPEN, OPAQUE_TLS, OPAQUE_HTTP2, OPAQUE_OTHER, OPAQUE_UPGRADED, OPAQUE_DISTRUSTED, UNWATCHED, IGNORED };

#define CARRIED __builtin_offsetof(struct direction, door)

struct flow {
  u64 id;                                                       // never used twice
  u32 generation;                                               // of the watch list, when it was asked
  u8 verdict, owner, closer, joined;                            // owner: its slot in `programs`. closer: 1 + direction of the first FIN
  u8 known, asked, pad[2];                                      // known: what it is was counted. asked: 1 + direction of a SYN that nobody has answered yet
  u32 asked_seq, begun[2];                                      // its number; of the SYN that each direction began with
  u8 more_pad[8];
  struct direction d[2];
};
// The kernel puts 48 bytes and the key in front.
_Static_assert(sizeof(struct direction) == 192 && (48 + sizeof(struct flow_key) + __builtin_offsetof(struct flow, d)) % 64 == 0, "parts are lines");

struct tap {                                                    // value of `taps`: written by user space once, counted here
  u64 flows, http, tls, http2, other, one_sided, two_sided;
};
struct domain { u32 ifindex, domain; };                         // value of `domains`
struct settings { u32 only, generation, watching, ignoring; };  // written by user space
struct prefix { u32 bits, address[4]; };                        // key of `watched`: bits of a v4-mapped address in network order
struct tuple { u64 local[2], remote[2]; u16 local_port, remote_port; u32 zero; };
struct message { u64 flow; u32 number, direction; };            // key of everything that belongs to a message or a direction
struct held {                                                   // whose it is: the last to begin. One writes at a time, or none
  u64 flow;
  u32 direction, writers;
  u8 data[HELD_WINDOW + HELD];                                  // HELD_WINDOW of it are used: the verifier sees offset and size apart
};
