// Every limit of the kernel side, with its reason. The loader overrides them by -D; tests shrink them.
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
#ifndef FLOWS
#define FLOWS 65536              // connections followed at once (all taps); about 300 bytes each
#endif
#ifndef HELD_FLOWS
#define HELD_FLOWS 256           // directions that wait for a missing segment at once; 12 KiB each
#endif
#ifndef HELD
#define HELD 4096                // half of what is kept of what came before a missing segment, a power of two: some segments of Ethernet size
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
#ifndef JOINED_TURNS
#define JOINED_TURNS 16          // segments of a connection joined in the middle that may begin with something else before it counts as not HTTP
#endif
#define EVER (1ULL << 62)        // bytes to pass: until the connection ends
