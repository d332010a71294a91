// Entry of every tap: L2 to L4, the flow, its sequence numbers, the cheap endings. Whatever is left goes to the flow's owner by tail call.
// A SOCK_DGRAM packet socket puts offset 0 at the network header, as a test run does.

// VLAN tags that stand in the frame. Sent frames may have the network header behind the tags already (net/packet/af_packet.c), so what follows decides.
static __always_inline u32 after_tags(struct __sk_buff *skb, u32 *protocol) {
  u32 off = 0;
#pragma unroll
  for (u32 i = 0; i < VLANS; i++) {
    struct { u16 tci, type; u8 next, rest; u16 total; } t;
    if (*protocol != HTONS(ETH_P_8021Q) && *protocol != HTONS(ETH_P_8021AD)) break;
    if (bpf_skb_load_bytes(skb, off, &t, sizeof t)) break;
    u32 ip4 = t.type == HTONS(ETH_P_IP) && t.next >> 4 == 4, ip6 = t.type == HTONS(ETH_P_IPV6) && t.next >> 4 == 6;
    if (ip4 || ip6 || t.type == HTONS(ETH_P_8021Q) || t.type == HTONS(ETH_P_8021AD)) { *protocol = t.type; off += 4; continue; }
    u32 version = (u8)t.tci >> 4;
    if (version == 4) *protocol = HTONS(ETH_P_IP);
    else if (version == 6) *protocol = HTONS(ETH_P_IPV6);
    break;
  }
  return off;
}

// Takes L3 and L4 apart into p; `there` bytes of the frame have been read. Returns COUNTERS when it is a TCP segment, else its outcome.
static __always_inline u32 dissect(struct __sk_buff *skb, struct segment *p, u8 *frame, u32 there) {
  u32 protocol = V(skb->protocol), off = 0, total;
  if (unlikely(protocol == HTONS(ETH_P_8021Q) || protocol == HTONS(ETH_P_8021AD))) off = after_tags(skb, &protocol);
  if (protocol == HTONS(ETH_P_IP)) {
    struct ipv4_header *ip = (void *)(frame + off);
    if (unlikely(there < off + sizeof *ip)) return COUNT_malformed;
    u32 l3 = off, ihl = (ip->version_ihl & 15) * 4;
    if (unlikely(ip->version_ihl >> 4 != 4 || ihl < 20)) return COUNT_malformed;
    total = bpf_ntohs(ip->total);
    off += ihl;
    if (unlikely(ip->protocol != IPPROTO_TCP)) {
      p->off = off; p->size = total > ihl ? total - ihl : 0;
      p->flags = ip->protocol == IPPROTO_UDP;
      return COUNT_not_tcp;
    }
    if (unlikely(ip->fragment & HTONS(0x3fff))) return COUNT_fragment;
    total = total ? l3 + total : p->length;                      // BIG TCP
    p->source[0] = p->destination[0] = 0;
    p->source[1] = V4_MAPPED | (u64)ip->source << 32;
    p->destination[1] = V4_MAPPED | (u64)ip->destination << 32;
  } else if (protocol == HTONS(ETH_P_IPV6)) {
    struct ipv6_header *ip = (void *)(frame + off);
    if (unlikely(there < off + sizeof *ip || (ip->flow & 0xf0) != 0x60)) return COUNT_malformed;
    total = ip->payload ? off + sizeof *ip + bpf_ntohs(ip->payload) : p->length;
    off += sizeof *ip;
    u32 next = ip->next;
#pragma unroll
    for (u32 i = 0; i < EXTENSIONS; i++) {
      u8 extension[2];
      if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS && next != IPPROTO_AH) break;
      if (bpf_skb_load_bytes(skb, off, extension, 2)) return COUNT_malformed;
      off += next == IPPROTO_AH ? (extension[1] + 2) * 4 : (extension[1] + 1) * 8;
      next = extension[0];
    }
    if (next == IPPROTO_FRAGMENT) return COUNT_fragment;
    if (next != IPPROTO_TCP) {
      p->off = off; p->size = total > off ? total - off : 0;
      p->flags = next == IPPROTO_UDP;
      return COUNT_not_tcp;
    }
    p->source[0] = ip->source[0]; p->source[1] = ip->source[1];
    p->destination[0] = ip->destination[0]; p->destination[1] = ip->destination[1];
  } else return COUNT_not_ip;
  struct tcp_header *tcp = (void *)(frame + BEGINNING);
  u64 at = off;
  if (likely(off + sizeof *tcp <= there)) {
    barrier_var(at); at &= BEGINNING - 1; barrier_var(at);      // Linux 5.10 forgets the bound
    tcp = (void *)(frame + at);
  } else if (bpf_skb_load_bytes(skb, off, tcp, sizeof *tcp)) return COUNT_malformed;     // behind long extension headers
  u32 doff = (tcp->offset >> 4) * 4;
  off += doff;
  if (unlikely(doff < 20 || total < off)) return COUNT_malformed;
  p->off = off; p->size = total - off;
  p->flags = tcp->flags;
  p->seq = bpf_ntohl(tcp->seq); p->ack = bpf_ntohl(tcp->ack);
  p->source_port = bpf_ntohs(tcp->source); p->destination_port = bpf_ntohs(tcp->destination);
  return COUNTERS;
}

// Is one of the flow's endpoints watched, and is it not one of the agent's own connections?
static __always_inline u32 admit(struct counters *c, struct settings *w) {
  struct segment *p = &c->p;
  if (w->ignoring) {
    c->t = (struct tuple){.local = {p->source[0], p->source[1]}, .remote = {p->destination[0], p->destination[1]},
                          .local_port = p->source_port, .remote_port = p->destination_port};
    if (ignored.lookup(&c->t)) return IGNORED;
    c->t = (struct tuple){.local = {p->destination[0], p->destination[1]}, .remote = {p->source[0], p->source[1]},
                          .local_port = p->destination_port, .remote_port = p->source_port};
    if (ignored.lookup(&c->t)) return IGNORED;
  }
  if (!w->watching) return OPEN;
  c->x.bits = 128;
  __builtin_memcpy(c->x.address, p->source, 16);
  u32 *a = watched.lookup(&c->x);
  u32 from = a ? *a : 0;
  __builtin_memcpy(c->x.address, p->destination, 16);
  a = watched.lookup(&c->x);
  u32 to = a ? *a : 0;
  if (from == 2 || to == 2 || (w->only && from != 1 && to != 1)) return UNWATCHED;
  return OPEN;
}

// Does this segment show that the SYN within a known connection was taken for a new one? Whoever has the connection answers such a SYN with a bare
// acknowledgement and goes on (RFC 9293, 3.10.7.4): the SYN alone, late or stray, changes nothing.
static __always_inline u32 anew_by(struct flow *f, struct segment *p, u32 back) {
  if (p->flags & TCP_SYN) return f->asked == 2 - back && p->ack == f->asked_seq + 1;
  return f->asked == 1 + back && p->seq == f->asked_seq + 1 && !(p->flags & TCP_RST);
}

// A new flow, or the old one begun afresh.
static __always_inline struct flow *begin(struct __sk_buff *skb, struct counters *c, u32 joined) {
  struct segment *p = &c->p;
  struct flow_key *k = &c->k;
  u32 zero = 0;
  struct flow *f = fresh_flow.lookup(&zero);
  struct settings *w = settings.lookup(&zero);
  if (!f || !w) return 0;
  __builtin_memset(f, 0, sizeof *f);
  f->id = bpf_ktime_get_ns() << 8 | (bpf_get_smp_processor_id() & 255);
  f->generation = w->generation;
  f->verdict = admit(c, w);
  f->joined = joined;
  c->n[COUNT_flows]++;
  if (f->joined) c->n[COUNT_flows_joined]++;
  if (f->verdict == UNWATCHED) c->n[COUNT_flows_unwatched]++;
  if (f->verdict == IGNORED) c->n[COUNT_flows_ignored]++;
  u32 ifindex = p->ifindex;
  struct tap *t = taps.lookup(&ifindex);
  if (t) __sync_fetch_and_add(&t->flows, 1);
  flows.update(k, f);
  return flows.lookup(k);
}

// Keeps payload that came before missing bytes at its place behind `origin`. 0: it does not fit, or another has taken the slot.
static __always_inline u32 keep_ahead(struct __sk_buff *skb, struct flow *f, struct direction *d, struct segment *p, u32 anew) {
  u32 size = p->size, at = p->seq - d->origin, slot = d->slot, kept = 0;
  if (size - 1 >= HELD || at >= HELD_WINDOW || at + size > HELD_WINDOW || p->off + size > p->length) return 0;
  if (anew) {
    u32 begin = (u32)(f->id >> 8) + p->direction;
#pragma unroll
    for (u32 i = 0; i < HELD_TRIES; i++) {
      slot = (begin + i) & (HELD_FLOWS - 1);
      struct held *x = held.lookup(&slot);
      if (!x || !V(x->flow)) break;
    }
    d->slot = slot;
  }
  struct held *h = held.lookup(&slot);
  if (!h) return 0;
  u64 n = size - 1, to = at;
  barrier_var(n); n &= HELD - 1; n = n + 1; barrier_var(n);
  barrier_var(to); to &= HELD_WINDOW - 1; barrier_var(to);
  __sync_fetch_and_add(&h->writers, 1);
  if (V(h->writers) == 1) {
    if (anew) { V(h->flow) = f->id; V(h->direction) = p->direction; }
    kept = owns(h, f->id, p->direction) && !bpf_skb_load_bytes(skb, p->off, h->data + to, n);
  }
  __sync_fetch_and_add(&h->writers, -1);
  return kept;
}

// Remembers that payload came before missing bytes. Two pieces with a hole between them are told apart; of more, only that they passed.
static __always_inline void hold(struct __sk_buff *skb, struct flow *f, struct direction *d, struct segment *p) {
  u32 seq = p->seq, end = seq + p->size, none = d->ahead == d->ahead_end, one = d->second == d->second_end, marks = d->marks;
  if (p->flags & TCP_FIN) {
    marks |= AHEAD_FIN;
    if (!f->closer) f->closer = 1 + p->direction;
  }
  if (none) {
    d->origin = d->next;
    d->ahead = d->ahead_end = seq;
    d->second = d->second_end = 0;
    marks |= KEPT_AHEAD;
    one = 1;
  }
  u32 kept = p->size ? keep_ahead(skb, f, d, p, none) : 1, lost_ahead = kept ? 0 : KEPT_AHEAD, lost_second = kept ? 0 : KEPT_SECOND;
  if ((s32)(end - d->ahead_end) > 0 && (one || (s32)(end - d->second_end) > 0)) {
    d->ahead_tail = 0;
    if (p->size >= 8) bpf_skb_load_bytes(skb, p->off + p->size - 8, &d->ahead_tail, 8);
  }
  if (seq == d->ahead_end) {
    d->ahead_end = end;
    marks &= ~lost_ahead;
    if (!one && end == d->second) {                             // the hole between the two is filled
      d->ahead_end = d->second_end;
      if (!(marks & KEPT_SECOND)) marks &= ~KEPT_AHEAD;
      d->second = d->second_end = 0;
    }
  } else if (end == d->ahead) {
    d->ahead = seq;
    marks &= ~lost_ahead;
  } else if (one && (s32)(seq - d->ahead_end) > 0) {
    d->second = seq; d->second_end = end;
    marks = kept ? marks | KEPT_SECOND : marks & ~KEPT_SECOND;
  } else if (one && (s32)(end - d->ahead) < 0) {
    d->second = d->ahead; d->second_end = d->ahead_end;
    marks = marks & KEPT_AHEAD ? marks | KEPT_SECOND : marks & ~KEPT_SECOND;
    d->ahead = seq; d->ahead_end = end;
    marks = kept ? marks | KEPT_AHEAD : marks & ~KEPT_AHEAD;
  } else if (!one && seq == d->second_end) {
    d->second_end = end;
    marks &= ~lost_second;
  } else if (!one && end == d->second) {
    d->second = seq;
    marks &= ~lost_second;
  } else if ((s32)(seq - d->ahead) < 0) {                       // a third piece, or one that overlaps
    d->ahead = seq;
    if ((s32)(end - d->ahead_end) > 0) d->ahead_end = end;
    marks &= ~KEPT_AHEAD;
  } else if (one) {
    if ((s32)(end - d->ahead_end) > 0) { d->ahead_end = end; marks &= ~KEPT_AHEAD; }
  } else if ((s32)(end - d->second_end) > 0) {
    d->second_end = end;
    marks &= ~KEPT_SECOND;
  }
  d->marks = marks;
}

// Some time passes: 700 ns.
int pause(struct __sk_buff *unused) {
#pragma unroll
  for (u32 k = 0; k < 16; k++) bpf_ktime_get_ns();
  return 0;
}

static __always_inline int opaque(struct counters *c, u32 verdict) {
  return outcome(c, verdict == UNWATCHED ? COUNT_unwatched : verdict == IGNORED ? COUNT_ignored : COUNT_opaque);
}

int packet(struct __sk_buff *skb) {
  u32 zero = 0;
  struct counters *c = counters.lookup(&zero);
  if (!c) return 0;
  struct segment *p = &c->p;
  c->n[COUNT_packets]++;
  p->ifindex = V(skb->ifindex); p->length = V(skb->len); p->leaving = V(skb->pkt_type) == PACKET_OUTGOING;
  if (p->ifindex == LOOPBACK_IFINDEX && p->leaving) return outcome(c, COUNT_loopback_copy);
  u8 *frame = own_room();
  if (!frame) return 0;
  u64 n = p->length < BEGINNING ? p->length : HEADERS;          // all of a small frame at once: a call takes 30 ns, whatever it reads
  n = n - 1; barrier_var(n); n &= BEGINNING - 1; n = n + 1; barrier_var(n);
  u32 there = bpf_skb_load_bytes(skb, 0, frame, n) ? 0 : n;
  p->read = there;
  u32 which = dissect(skb, p, frame, there);
  if (which == COUNT_not_tcp && p->flags) on_datagram(skb, p);
  if (which != COUNTERS) return outcome(c, which);
  u32 bare = !p->size && !(p->flags & (TCP_SYN | TCP_FIN | TCP_RST));
  if (bare) {
    on_ack(skb, p);
    u32 *looks = holes.lookup(&zero);
    if (!unlikely(looks && V(*looks))) return outcome(c, COUNT_bare_ack);
    V(*looks) = V(*looks) - 1;
  }

  struct flow_key *k = &c->k;
  u32 back = p->source[0] > p->destination[0] || (p->source[0] == p->destination[0] && (p->source[1] > p->destination[1] ||
             (p->source[1] == p->destination[1] && p->source_port > p->destination_port)));
  p->direction = back;
  k->a[0] = back ? p->destination[0] : p->source[0]; k->a[1] = back ? p->destination[1] : p->source[1];
  k->b[0] = back ? p->source[0] : p->destination[0]; k->b[1] = back ? p->source[1] : p->destination[1];
  k->port_a = back ? p->destination_port : p->source_port; k->port_b = back ? p->source_port : p->destination_port;
  u32 slot = p->ifindex & (DOMAINS - 1);
  struct domain *o = domains.lookup(&slot);
  k->domain = o && o->ifindex == p->ifindex ? o->domain : p->ifindex;

  struct flow *f = flows.lookup(k);
  if (unlikely(bare)) {                                         // does it acknowledge what is missing?
    struct door *o = f ? &f->d[back & 1].door : 0;
    if (o && (s32)(p->ack - V(o->acked)) > 0) V(o->acked) = p->ack;
    return outcome(c, COUNT_bare_ack);
  }
  u32 syn = p->flags & TCP_SYN, anew = 0;
  if (unlikely(syn && !(p->flags & TCP_ACK))) {
    on_syn(skb, p);
    if (f && f->d[back & 1].stage != NEW) {
      u32 again = f->begun[back & 1] == p->seq;                 // the same SYN again changes nothing
      if (again || !p->size) {
        if (!again) { f->asked = 1 + back; f->asked_seq = p->seq; }
        return outcome(c, p->size ? COUNT_retransmitted : COUNT_handshake);
      }
    }
    f = 0;
  } else if (unlikely(f && f->asked) && anew_by(f, p, back)) { f = 0; anew = 1; }
  if (unlikely(!f)) {
    if (!p->size && !syn && !anew) return outcome(c, COUNT_stray_end);
    f = begin(skb, c, !syn && !anew);
    if (!f) return outcome(c, COUNT_no_flow);
    if (f->verdict == OPEN) own_flow(f);
    if (anew) {
      u32 side = syn ? !back : back, first = syn ? p->ack : p->seq;
      struct direction *d = &f->d[side & 1];
      d->next = first; d->stage = KNOWN; d->marks = AFTER_GAP | FIRST;
      f->begun[side & 1] = first - 1;
    }
  }
  if (f->verdict) {
    struct settings *w = settings.lookup(&zero);
    if (f->verdict != UNWATCHED || !w || f->generation == w->generation) {
      if (f->verdict < UNWATCHED && p->size) on_segment(skb, f, p, 0, 0);
      u32 which_end = 1 + back, ended = p->flags & TCP_RST || (p->flags & TCP_FIN && f->closer && f->closer != which_end);
      if (p->flags & TCP_FIN) f->closer = which_end;
      u32 verdict = f->verdict;
      if (ended) flows.delete(k);
      return opaque(c, verdict);
    }
    f->generation = w->generation;
    f->verdict = admit(c, w);
    if (f->verdict) return opaque(c, f->verdict);
    f->joined = 1;
    own_flow(f);
  }
  back = V(p->direction);                                       // from memory, like the flags: one state to the verifier, whichever they are
  syn = V(p->flags) & TCP_SYN;
  struct direction *d = &f->d[back & 1], *other = &f->d[~back & 1];
  struct door *door = &d->door;
  if (unlikely(!enter(door))) return outcome(c, COUNT_collided);          // as if it had not been seen
  u32 seq = p->seq, size = p->size, fin = p->flags & TCP_FIN;
  if (unlikely(p->flags & TCP_RST)) {                            // RFC 5961: only at the expected place; data in it is no part of the stream
    u32 sure = d->stage == NEW ? seq == other->ack : seq == d->next || (other->stage != NEW && seq == other->ack);
    leave(door);
    if (!sure) return outcome(c, COUNT_blind_reset);
    d->stage = KNOWN;
    on_end(skb, f, p);
    outcome(c, COUNT_end);
    return own_end(skb, f, d, other, k, p);
  }
  if (unlikely(syn)) p->seq = ++seq;
  if (unlikely(d->stage == NEW)) {
    d->next = seq; d->ack = p->ack; d->stage = KNOWN;
    d->marks = AFTER_GAP | FIRST;
    if (syn) f->begun[back & 1] = seq - 1;
    if (!syn && (f->joined || seq != other->ack)) own_joined(d);   // with only one half of the handshake seen, the other's acknowledgement tells
  }
  V(door->acked) = p->ack;
  if (unlikely(!size && !fin)) { leave(door); return outcome(c, COUNT_handshake); }

  s32 old = d->next - seq;
  u32 hole = 0;
  if (unlikely(old < 0)) {
    u32 gap = hole = -old;
    if (gap > WILD && (s32)(V(other->door.acked) - seq) < -WILD) { leave(door); return outcome(c, COUNT_wild); }
    if (d->left >= gap) {                                       // inside a body: which bytes they were does not matter
      d->left -= gap;
      if (!d->left || !size) own_end_unseen(d);
    }
    else if (!own_waits(d) || (other->stage != NEW && (s32)(V(other->door.acked) - d->next) > 0) || gap > WILD) {
      u32 waited = d->ahead_end - d->ahead + d->second_end - d->second;
      own_lost(d);                                              // truly unseen: the other side has acknowledged more
      u32 slot = d->slot;
      struct held *kept = waited ? held.lookup(&slot) : 0;
      if (kept && owns(kept, f->id, p->direction)) V(kept->flow) = 0;
      d->ahead = d->ahead_end = d->second = d->second_end = 0;
      d->marks &= ~AHEAD_FIN;
      if (d->left >= waited) d->left -= waited;                 // chunks go on, somewhere
    } else {
      if (d->ahead == d->ahead_end) c->n[COUNT_holes]++;
      hold(skb, f, d, p);
      u32 *looks = holes.lookup(&zero);
      if (looks) V(*looks) = HOLE_ACKS;
      leave(door);
      return outcome(c, COUNT_held);
    }
    d->next = seq;
    if (!d->left) d->marks |= AFTER_GAP;
    old = 0;
  }
  if (unlikely(old > (s32)size || (old == (s32)size && !fin) || (d->marks & ENDED))) { leave(door); return outcome(c, COUNT_retransmitted); }
  on_segment(skb, f, p, old, hole);
  p->off += old; p->size = size -= old; p->seq = d->next;
  if (d->left > size && !fin && !own_peeks(d)) {
    d->left -= size;
    d->next += size;
    d->ack = p->ack;
    leave(door);
    return outcome(c, COUNT_passed);
  }
  if (fin) on_end(skb, f, p);
  return own_segment(skb, c, f, d, other, door, k, p);
}
