// Which response belongs to which request, and what leaves the kernel.
//
// Each request of a connection gets the next number, each final response takes the next. After a loss on either side the numbers mean nothing until a
// response begins exactly at the byte that its request had acknowledged, and no other request can have acknowledged the same: that request (the anchor)
// began a segment, the byte before it was seen, it acknowledged all that the server had sent and more than the segment before, and the connection never
// had two requests under way; and that response acknowledges that request. What is paired from then on carries HTTP_FLAG_RESYNCHRONISED.

static __always_inline u32 is_open(struct http_pending *p, u32 number) { return p && p->m.number == number && !p->sent; }

// The open request with this number: in its slot, or under its own key when more than HTTP_SLOTS_A_FLOW were under way.
static __always_inline struct http_pending *find(struct message *m, u32 number) {
  V(m->number) = number % HTTP_SLOTS_A_FLOW;
  struct http_pending *p = http_pending.lookup(m);
  if (is_open(p, number)) return p;
  V(m->number) = number | HTTP_OWN_KEY;
  p = http_pending.lookup(m);
  return is_open(p, number) ? p : 0;
}

static __always_inline void send(struct http_scratch *s, struct http_pending *p) {
  u32 error = p->r.error;
  struct http_counters *c = http_counters.lookup(&s->zero);
  p->r.flags |= p->flags;
  if (!c) return;
#ifdef TRANSPORT_HASH
  u64 serial = (c->n[HTTP_COUNT_sent] + c->n[HTTP_COUNT_lost]) << 8 | (bpf_get_smp_processor_id() & 255);
  u32 full = http_records.update(&serial, &p->r) != 0;
#else
  u32 full = http_records.ringbuf_output(&p->r, sizeof p->r, BPF_RB_NO_WAKEUP) != 0;
#endif
  c->n[full ? HTTP_COUNT_lost : HTTP_COUNT_sent]++;
  c->n[error == HTTP_ERROR_NONE ? HTTP_COUNT_answered : error == HTTP_ERROR_RESET ? HTTP_COUNT_reset : HTTP_COUNT_closed]++;
}

// A message is complete, or as complete as it will ever be known to be; p: its request, where it is at hand. As a rule the request was complete before its
// response began, and the response sends the record. Else the side that finds both complete and wins the delete sends it.
static __always_inline void finish(struct http_scratch *s, struct direction *d, u32 flags, struct http_pending *p) {
  struct http_direction *h = http_of(d);
  V(s->k) = flags | V(h->uncertain);
  V(h->uncertain) = 0;
  V(s->n) = V(h->number);
  V(h->number) = V(s->n) + 1;
  V(h->phase) = V(s->verdict) ? STOPPED : START;
  if (!p) p = find(&s->m, V(s->n));
  if (!p) return;
  if (V(h->role) == REQUEST) {
    p->r.request_body = V(h->body) - V(d->left);
    p->r.request_end_ns = V(s->ended_ns);
    p->r.flags |= V(s->k);
    V(p->req_done) = 1;
    if (!V(p->resp_done)) return;
  } else {
    p->r.response_body = V(h->body) - V(d->left);
    p->r.response_end_ns = V(s->ended_ns);
    p->flags |= V(s->k);
    V(p->resp_done) = 1;
    if (!V(p->req_done)) return;
    if (!p->early) {
      send(s, p);
      p->sent = 1;
      if (V(s->m.number) & HTTP_OWN_KEY) http_pending.delete(&s->m);
      return;
    }
  }
  V(s->early) = 1;                                              // `http_early` sends it
}

// Copies an open request; what is zero in both is left out.
static __always_inline void copy_pending(struct http_pending *to, struct http_pending *from) {
  u8 *t = (u8 *)to, *f = (u8 *)from;
  u32 wide = V(to->wide) | V(from->wide);
  copy8(t, f, HTTP_BEFORE / 8);
  copy8(t + HTTP_BEHIND, f + HTTP_BEHIND, (HTTP_END - HTTP_BEHIND) / 8);
  if (!unlikely(wide)) return;
  copy8(t + HTTP_BEFORE, f + HTTP_BEFORE, (HTTP_BEHIND - HTTP_BEFORE) / 8);
  copy8(t + HTTP_END, f + HTTP_END, (sizeof *to - HTTP_END) / 8);
}

// A request head is complete: the request is open from here on.
static __always_inline void open_request(struct http_scratch *s, struct http_direction *h) {
  struct http_pending *n = &s->p;
  struct http_record *r = &n->r;
  u32 side = V(s->direction) & 1;                               // the client is b when it sends from b to a
  u8 *client = (u8 *)s->key.a + 16 * side, *server = (u8 *)s->key.a + 16 * (side ^ 1);
  copy8(r->client_address, client, 2);
  copy8(r->server_address, server, 2);
  u16 *ports = &s->key.port_a;
  V(r->client_port) = V(ports[side]);
  V(r->server_port) = V(ports[!side]);
  V(r->tap) = V(s->ifindex);
  V(r->direction) = V(s->leaving) ? HTTP_DIRECTION_LEFT : HTTP_DIRECTION_ARRIVED;
  V(r->request_end_ns) = V(s->now);
  V(r->number) = V(h->number);
#ifdef HTTP_SLOT_HOST
  copy8(r->slots[HTTP_SLOT_HOST], r->host, HTTP_TEXT / 8);
  V(r->slot_len[HTTP_SLOT_HOST]) = V(r->host_len);
#endif
#ifdef HTTP_SLOT_AGENT
  copy8(r->slots[HTTP_SLOT_AGENT], r->agent, HTTP_TEXT / 8);
  V(r->slot_len[HTTP_SLOT_AGENT]) = V(r->agent_len);
#endif
#ifdef HTTP_SLOT_TRACESTATE
  copy8(r->slots[HTTP_SLOT_TRACESTATE], r->tracestate, HTTP_TEXT / 8);
  V(r->slot_len[HTTP_SLOT_TRACESTATE]) = V(r->tracestate_len);
#endif
  V(n->m.flow) = V(s->m.flow); V(n->m.number) = V(h->number);
  http_count(s, HTTP_COUNT_opened);
  if (V(h->phase) == START) {
    V(n->req_done) = 1;
    V(h->number) = V(r->number) + 1;
  }
  V(s->m.number) = V(r->number) % HTTP_SLOTS_A_FLOW;
  struct http_pending *p = http_pending.lookup(&s->m);
  V(s->k) = 0;
  if (p) V(s->k) = p->sent ? 1 : (s32)(p->m.number - V(s->other_number)) < 0 ? 2 : 0;
  if (unlikely(V(s->k) == 2)) http_count(s, HTTP_COUNT_given_up);         // its response was passed over after a loss
  if (p && V(s->k)) {
    copy_pending(p, n);                                         // an update takes 180 ns, this 30
    return;
  }
  if (p) V(s->m.number) = V(r->number) | HTTP_OWN_KEY;
  http_pending.update(&s->m, n);
}

// Can the response be the answer to this request, after a loss? Whoever answers a request has received it, and says so with every segment.
static __always_inline u32 answers(struct http_scratch *s, struct http_direction *h, struct http_pending *p) {
  return p && p->alone && p->r.request_ack == V(h->first) && (s32)(V(h->ack) - p->r.request_seq - p->r.request_head) >= 0;
}

// The request of the final response whose head is complete, or none.
static __always_inline struct http_pending *pair(struct http_scratch *s, struct http_direction *h) {
  V(s->sure) = V(h->losses) == V(h->healed);
  if (V(s->other_losses) != V(h->healed_other) && (s32)(V(h->number) - V(s->other_lost)) >= 0) V(s->sure) = 0;
  V(s->k) = V(s->sure) ? V(h->number) : V(s->other_number) - 1;
  struct http_pending *p = find(&s->m, V(s->k));
  if (V(s->sure)) return p;
  if (!answers(s, h, p)) p = find(&s->m, V(s->other_number));
  if (!answers(s, h, p) || V(s->other_pipelined)) return 0;
  V(h->number) = p->m.number;
  V(h->resynchronised) = 1;
  if ((s32)(V(h->number) - V(s->other_floor)) < 0) return p;    // a request before the loss heals nothing
  V(h->healed) = V(h->losses);
  V(h->healed_other) = V(s->other_losses);
  http_count(s, HTTP_COUNT_resynchronised);
  return p;
}
