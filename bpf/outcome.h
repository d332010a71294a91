// What the packet program and the owners of connections share.

static __always_inline int outcome(struct counters *c, u32 which) { c->n[which]++; return 0; }

// The capture's own time in a replay (cb[0..1], cleared by the kernel on a tap), else the clock.
static __always_inline u64 now_ns(struct __sk_buff *skb) {
  u64 given = (u64)V(skb->cb[1]) << 32 | V(skb->cb[0]);
  return given ? given : bpf_ktime_get_ns();
}

// A CPU enters a direction. A socket filter may not lock; two counters tell when two were inside at once.
static __always_inline u32 enter(struct direction *d) {
  u32 entered = V(d->entered);
  if (entered != V(d->leaving)) { V(d->entered) = V(d->leaving); return 0; }
  V(d->entered) = entered + 1;
  return 1;
}
static __always_inline void leave(struct direction *d) { V(d->leaving) = V(d->entered); }
