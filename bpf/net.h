// The few network headers that are read, declared here so that no kernel header is needed.
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define ETH_P_8021Q 0x8100
#define ETH_P_8021AD 0x88a8
#define PACKET_OUTGOING 4
#define LOOPBACK_IFINDEX 1       // in every network namespace (net/core/dev.c)
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_HOPOPTS 0
#define IPPROTO_ROUTING 43
#define IPPROTO_FRAGMENT 44
#define IPPROTO_AH 51
#define IPPROTO_DSTOPTS 60
#define HTONS(x) ((u16)((x) << 8 | (x) >> 8))
#define V4_MAPPED 0xffff0000ULL  // bytes 8 to 11 of ::ffff:a.b.c.d, as a little-endian word

enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_ACK = 16 };

struct ipv4_header { u8 version_ihl, tos; u16 total; u16 id, fragment; u8 ttl, protocol; u16 sum; u32 source, destination; };
struct ipv6_header { u32 flow; u16 payload; u8 next, hops; u64 source[2], destination[2]; };
struct tcp_header { u16 source, destination; u32 seq, ack; u8 offset, flags; u16 window, sum, urgent; };

// What `packet` knows about a TCP segment or a datagram; hooks get it. Offsets count from the network header.
struct segment {
  u64 source[2], destination[2];                                // IPv4 as v4-mapped IPv6
  u16 source_port, destination_port;                            // host order
  u32 off, size;                                                // payload: where it begins, bytes by the IP length
  u32 seq, ack;
  u32 ifindex, length, leaving;                                 // of the frame: read once, for clang folds offsets into the context's address
  u32 read;                                                     // bytes of the frame that lie in the owner's room
  u8 flags, direction;                                          // direction: index into flow.d; 0 sent by endpoint a
};
