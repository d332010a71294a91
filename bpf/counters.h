// What the packet program counts, per CPU; user space reads the names from this list. Every packet ends in exactly one OUTCOME, so they add up to `packets`.
#define PACKET_COUNTERS(OUTCOME, COUNT) \
  COUNT(packets)                 /* all that a tap saw */ \
  OUTCOME(loopback_copy)         /* the leaving half of a loopback frame, which arrives as well */ \
  OUTCOME(not_ip)                /* ARP and the like */ \
  OUTCOME(not_tcp)               /* UDP, ICMP, ... */ \
  OUTCOME(fragment)              /* IP fragments: not put together */ \
  OUTCOME(malformed)             /* headers that contradict themselves */ \
  OUTCOME(bare_ack)              /* no payload: changes nothing */ \
  OUTCOME(handshake)             /* SYN without data */ \
  OUTCOME(stray_end)             /* FIN or RST of a connection that is not followed */ \
  OUTCOME(blind_reset)           /* RST outside the expected place: ignored */ \
  OUTCOME(end)                   /* FIN or RST that was followed */ \
  OUTCOME(opaque)                /* of a connection that is not HTTP/1 */ \
  OUTCOME(unwatched)             /* of addresses that are not watched */ \
  OUTCOME(ignored)               /* of the agent's own exports */ \
  OUTCOME(retransmitted)         /* seen before: retransmission, keep-alive or window probe */ \
  OUTCOME(wild)                  /* further ahead than any window */ \
  OUTCOME(held)                  /* came before a missing one; waits */ \
  OUTCOME(passed)                /* inside a body whose end is known */ \
  OUTCOME(skipped)               /* no certain start line yet after a loss */ \
  OUTCOME(parsed)                /* went to the owner of its connection */ \
  OUTCOME(collided)              /* another CPU was inside the direction for too long */ \
  OUTCOME(no_flow)               /* no room, or the connection was evicted in this instant */ \
  COUNT(flows)                   /* connections that began to be followed */ \
  COUNT(flows_joined)            /* of these: in mid-connection */ \
  COUNT(flows_http)              /* connections by what their first bytes are */ \
  COUNT(flows_tls) \
  COUNT(flows_http2) \
  COUNT(flows_other) \
  COUNT(flows_upgraded)          /* HTTP/1 until 101 or CONNECT */ \
  COUNT(flows_distrusted)        /* HTTP/1 until its framing contradicted itself */ \
  COUNT(flows_unwatched) \
  COUNT(flows_ignored) \
  COUNT(flows_ended)             /* by RST, or FIN of both sides */ \
  COUNT(flows_one_sided)         /* ended, and only one direction was ever seen */ \
  COUNT(holes)                   /* times that a segment was missing where it mattered */ \
  COUNT(holes_filled)            /* of these: the segment came, and what had come before it was kept */
#define ENUM_COUNTER(name) COUNT_##name,
enum { PACKET_COUNTERS(ENUM_COUNTER, ENUM_COUNTER) COUNTERS };
