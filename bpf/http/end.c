// A connection is known for what it is, or one side of it has ended: requests that will never be answered become records with an error, and no status is
// invented. With both sides ended nothing of it stays.
#ifndef HTTP_DEEP
#define HTTP_DEEP 8              // open requests that one run ends; 33 runs are the limit of the kernel, more requests stay and are evicted
#endif

static __always_inline void known(struct http_scratch *s, struct flow *f, struct counters *c, struct tap *t) {
  u32 verdict = V(s->verdict);
  if (!f->known && verdict != OPAQUE_OTHER && verdict != OPAQUE_HTTP2) {
    f->known = 1;
    c->n[COUNT_flows_http]++;
    if (t) __sync_fetch_and_add(&t->http, 1);
  }
  if (!verdict) return;
  f->verdict = verdict;
  if (verdict == OPAQUE_UPGRADED) c->n[COUNT_flows_upgraded]++;
  if (verdict == OPAQUE_DISTRUSTED) c->n[COUNT_flows_distrusted]++;
  if (verdict == OPAQUE_OTHER || verdict == OPAQUE_HTTP2) {
    c->n[verdict == OPAQUE_OTHER ? COUNT_flows_other : COUNT_flows_http2]++;
    if (t) __sync_fetch_and_add(verdict == OPAQUE_OTHER ? &t->other : &t->http2, 1);
  }
}

int http_end(struct __sk_buff *skb) {
  u32 zero = 0;
  struct http_scratch *s = http_scratch.lookup(&zero);
  struct counters *c = counters.lookup(&zero);
  if (!s || !c) return 0;
  struct flow *f = flows.lookup(&s->key);
  if (!f) return 0;
  if (s->entered_by_stream) known(s, f, c, taps.lookup(&s->ifindex));
  struct direction *d0 = &f->d[0], *d1 = &f->d[1];
  u32 response = http_of(d0)->role == REQUEST || http_of(d1)->role == RESPONSE;
  V(s->response) = response;
  struct direction *r = &f->d[V(s->response) & 1], *q = &f->d[!V(s->response)];
  struct http_direction *hr = http_of(r), *hq = http_of(q);
  V(s->reset) = (s->fin & TCP_RST) != 0;
  V(s->both) = d0->stage && d1->stage;
  V(s->finished) = s->reset || (r->marks & q->marks & ENDED) || (s->fin && !V(s->both));
  if (!V(s->finished) && !(r->marks & ENDED) && !f->verdict) return 0;
  V(s->begun) = hr->phase >= CHUNK_SIZE && hr->phase < DONE;
  V(s->certain_end) = hr->losses == hr->healed && hq->losses == hr->healed_other && !hr->cause && hr->phase != CHUNKS_LOST && r->ahead == r->ahead_end && V(s->both) && s->fin;
  V(s->begun) = V(s->begun) && V(s->both) && s->fin;
  // A response whose end may be among what was not seen: its flags, and whether it can be said to have failed.
  V(s->n) = s->direction == V(s->response) ? V(s->skipped) : V(s->unseen);
  V(s->id) = V(s->n) || hr->phase == CHUNKS_LOST ? HTTP_FLAG_UNCERTAIN_END | HTTP_FLAG_UNCERTAIN_SIZE : 0;
  V(s->sure) = !V(s->id) || hr->phase == UNTIL_CLOSE || (hr->phase == FIXED && V(s->n) < r->left);
  if (hr->phase == FIXED && !V(s->sure)) { V(s->id) = HTTP_FLAG_UNCERTAIN_END; r->left = 0; }
  if (s->direction == V(s->response) ? V(s->skipped) : V(s->unseen)) V(s->certain_end) = 0;     // an answer may be among what was not seen
  V(s->partly) = q->ahead != q->ahead_end || hq->cause || (s->direction == V(s->response) ? V(s->unseen) : V(s->skipped));      // of the request's body
  V(s->status) = hr->role == RESPONSE && hr->phase == HEAD && (hr->status >= 200 || hr->status == 101) ? hr->status : 0;
  V(s->start) = hr->number;
  V(s->nl) = (s32)(hr->number - hq->number) > 0 ? hq->number : hr->number;       // a request may be answered before it has ended
  V(s->last) = hq->number + (hq->role == REQUEST && hq->phase >= CHUNK_SIZE && hq->phase < DONE);
  u32 client = V(s->reset) ? s->direction != V(s->response) : f->closer == 1 + !V(s->response);
  V(s->k) = client ? HTTP_SIDE_CLIENT : HTTP_SIDE_SERVER;
  programs.call(skb, PROGRAM_http_sweep);
  return 0;
}

// Ends the open requests nl..last, HTTP_DEEP of them a run; then forgets the connection, if it is over.
int http_sweep(struct __sk_buff *skb) {
  u32 zero = 0;
  struct http_scratch *s = http_scratch.lookup(&zero);
  struct counters *c = counters.lookup(&zero);
  if (!s || !c) return 0;
  struct flow *f = flows.lookup(&s->key);
  if (!f) return 0;
  struct direction *r = &f->d[s->response & 1], *q = &f->d[!s->response];
  struct http_direction *hr = http_of(r), *hq = http_of(q);
#pragma clang loop unroll(disable)
  for (u32 i = 0; i < HTTP_DEEP; i++) {
    u32 n = V(s->nl);
    if ((s32)(n - V(s->last)) >= 0) break;
    V(s->nl) = n + 1;
    V(s->n) = n == V(s->start) && V(s->begun);                  // its response had begun
    struct http_pending *p = find(&s->m, n);
    if (!p) continue;
    u32 answered = V(p->resp_done);
    if (answered && !V(s->finished)) continue;
    if (!answered && !V(s->certain_end) && !V(s->n)) {
      if (!V(s->finished) && !f->verdict) continue;
      http_count(s, HTTP_COUNT_given_up);
      http_pending.delete(&s->m);
      continue;
    }
    copy8(&s->out, p, sizeof *p / 8);
    if (http_pending.delete(&s->m)) continue;
    struct http_record *o = &s->out.r;
    if (V(s->n)) o->response_body = hr->body - r->left;
    if (n == V(s->start) && !answered) {
      if (V(s->status)) {                                       // cut off inside its head, behind the status
        o->status = V(s->status);
        o->response_seq = hr->seq;
        o->response_start_ns = hr->start_ns;
      }
      V(s->out.flags) |= hr->interim || (hr->phase == HEAD && hr->flags) ? HTTP_FLAG_INTERIM : 0;
    }
    if (!answered) o->response_end_ns = V(s->now);
    if (!V(s->out.req_done)) {
      o->request_body = hq->body - q->left;
      o->request_end_ns = hq->last_ns;
      if (V(s->partly)) V(s->out.flags) |= HTTP_FLAG_UNCERTAIN_END | HTTP_FLAG_UNCERTAIN_SIZE;
    }
    if (V(s->n)) V(s->out.flags) |= V(s->id);
    if (!V(s->out.resp_done) && (!V(s->n) || V(s->sure))) {
      V(o->error) = V(s->reset) ? HTTP_ERROR_RESET : HTTP_ERROR_CLOSED;
      V(o->side) = V(s->k);
    }
    send(s, &s->out);
  }
  if ((s32)(V(s->nl) - V(s->last)) < 0) { programs.call(skb, PROGRAM_http_sweep); return 0; }
  if (!V(s->finished)) {
    hr->number = V(s->last);
    return 0;
  }
#pragma clang loop unroll(disable)
  for (u32 i = 0; i < HTTP_SLOTS_A_FLOW; i++) {                 // what answered requests have left
    V(s->m.number) = i;
    struct http_pending *p = http_pending.lookup(&s->m);
    if (!p) continue;
    if (!p->sent) http_count(s, HTTP_COUNT_given_up);
    http_pending.delete(&s->m);
  }
  s->pm.flow = f->id; s->pm.number = 0;
  s->pm.direction = 1; http_partial.delete(&s->pm);
  s->pm.direction = 2; http_partial.delete(&s->pm);
  c->n[COUNT_flows_ended]++;
  if (!V(s->both)) c->n[COUNT_flows_one_sided]++;
  struct tap *t = taps.lookup(&s->ifindex);
  if (t) __sync_fetch_and_add(V(s->both) ? &t->two_sided : &t->one_sided, 1);
  flows.delete(&s->key);
  return 0;
}
