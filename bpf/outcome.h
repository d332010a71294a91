// What the packet program and the owners of connections share.

static __always_inline int outcome(struct counters *c, u32 which) { c->n[which]++; return 0; }

// The capture's own time in a replay (cb[0..1], cleared by the kernel on a tap), else the clock.
static __always_inline u64 now_ns(struct __sk_buff *skb) {
  u64 given = (u64)V(skb->cb[1]) << 32 | V(skb->cb[0]);
  return given ? given : bpf_ktime_get_ns();
}

// One CPU at a time is inside a direction: the frames of one direction may come through two at once (what a sender writes, and what an acknowledgement lets
// go, leave on the CPU where that happens). A socket filter may not use bpf_spin_lock, and Linux 5.10 has no exchange. Whoever adds to `entered`, a full
// barrier, and then sees nobody else is alone, since `left` is read first. 0: it took too long.
static __always_inline u32 enter(struct door *o) {
#pragma clang loop unroll(disable)
  for (u32 i = 0; i < TURNS; i++) {
    __sync_fetch_and_add(&o->entered, 1);
    u32 left = V(o->left);
    if (!unlikely(V(o->entered) - left != 1)) return 1;
    __sync_fetch_and_add(&o->entered, -1);
    call_pause();
  }
  return 0;
}
static __always_inline void leave(struct door *o) { V(o->left) = V(o->left) + 1; }

static __always_inline u32 owns(struct held *h, u64 flow, u32 direction) { return V(h->flow) == flow && V(h->direction) == direction; }
