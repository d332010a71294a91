// A source for the tests: a record for each first SYN, each datagram and each segment of a connection that is not HTTP/1.
struct dummy_record { u64 time_ns; u32 tap, bytes; u8 kind, pad[7]; };
BPF_RINGBUF_OUTPUT(dummy_records, DUMMY_RING_PAGES);

static __always_inline void dummy_emit(struct __sk_buff *skb, struct segment *p, u8 kind) {
  struct dummy_record r = {.time_ns = now_ns(skb), .tap = p->ifindex, .bytes = p->size, .kind = kind};
  dummy_records.ringbuf_output(&r, sizeof r, BPF_RB_NO_WAKEUP);
}
static __always_inline void dummy_on_syn(struct __sk_buff *skb, struct segment *p) { dummy_emit(skb, p, 0); }
static __always_inline void dummy_on_datagram(struct __sk_buff *skb, struct segment *p) { dummy_emit(skb, p, 1); }
static __always_inline void dummy_on_segment(struct __sk_buff *skb, struct flow *f, struct segment *p, u32 old, u32 gap) {
  if (f->verdict) dummy_emit(skb, p, 2);
}
