// Every limit of the kernel side, with its reason. The loader overrides them by -D; tests shrink them.
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
#ifndef FLOWS
#define FLOWS 65536              // connections followed at once (all taps); about 300 bytes each
#endif
#ifndef HELD_FLOWS
#define HELD_FLOWS 32            // directions that wait for a missing segment at once, a power of two; 320 KiB each
#endif
#ifndef HELD
#define HELD 65536               // longest payload that is kept until a missing segment comes: a frame of GSO
#endif
#ifndef HELD_TRIES
#define HELD_TRIES 4             // slots that are looked at for a free one
#endif
#ifndef HELD_WINDOW
#define HELD_WINDOW (4 * HELD)   // how far beyond the first missing byte, a power of two: two CPUs that carry one stream swap a few frames
#endif
#ifndef HOLE_ACKS
#define HOLE_ACKS 1024           // bare acknowledgements that are looked at after a segment that waits for a missing one
#endif
#ifndef TURNS
#define TURNS 128                // looks, 700 ns each, at a direction that another CPU is inside of
#endif
#ifndef WATCHED
#define WATCHED 16384            // watched or excluded addresses and networks
#endif
#ifndef TAPS
#define TAPS 4096                // interfaces with counters of their own
#endif
#ifndef DOMAINS
#define DOMAINS 1024             // slots of taps that share a domain, a power of two
#endif
#ifndef WILD
#define WILD (16 << 20)          // a segment further ahead than any window is not believed (RFC 7323 allows 1 GiB, nobody uses it unseen)
#endif
#ifndef EXTENSIONS
#define EXTENSIONS 6             // IPv6 extension headers that are walked (RFC 8200 lists six)
#endif
#ifndef VLANS
#define VLANS 2                  // VLAN tags left in the frame (802.1ad)
#endif
#ifndef BEGINNING
#define BEGINNING 1024           // frames shorter than this are read at once, a power of two
#endif
#define HEADERS (4 * VLANS + 60 + 20)                           // bytes of others that are read first: tags, IPv4 with options, TCP
#ifndef JOINED_TURNS
#define JOINED_TURNS 16          // segments of a connection joined in the middle that may begin with something else before it counts as not HTTP
#endif
#define EVER (1ULL << 62)        // bytes to pass: until the connection ends
