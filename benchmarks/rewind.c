// For benchmarks/kernel_cost.py: makes one segment measurable many times in a row on the shipped programs. `bench_save` keeps the state of a connection and of
// one open request, `bench_rewind` puts it back and goes on to another program by tail call. What putting back costs is measured with `bench_empty` behind it.
struct bench_state {
  struct flow_key key;
  u32 slot, target;                                             // of the open request among those of its connection; place in `programs`
  struct flow flow;
  struct http_pending pending;
};
BPF_ARRAY(bench_state, struct bench_state, 1);

int bench_empty(struct __sk_buff *skb) { return 0; }

int bench_save(struct __sk_buff *skb) {
  u32 zero = 0;
  struct bench_state *b = bench_state.lookup(&zero);
  if (!b) return 0;
  struct flow *f = flows.lookup(&b->key);
  if (!f) return 0;
  struct message m = {.flow = f->id, .number = b->slot};
  struct http_pending *p = http_pending.lookup(&m);
  copy8(&b->flow, f, sizeof *f / 8);
  if (p) copy8(&b->pending, p, sizeof *p / 8);
  return 0;
}

int bench_rewind(struct __sk_buff *skb) {
  u32 zero = 0;
  struct bench_state *b = bench_state.lookup(&zero);
  if (!b) return 0;
  struct flow *f = flows.lookup(&b->key);
  if (!f) return 0;
  struct message m = {.flow = f->id, .number = b->slot};
  struct http_pending *p = http_pending.lookup(&m);
  copy8(f, &b->flow, sizeof *f / 8);
  if (p) copy8(p, &b->pending, sizeof *p / 8);
  programs.call(skb, b->target);
  return 0;
}

// What any program of this kind takes, however little it does: a packet counted and its headers read; and a connection of that size of key found.
int bench_read(struct __sk_buff *skb) {
  u32 zero = 0;
  struct counters *c = counters.lookup(&zero);
  u8 headers[40];
  if (!c || bpf_skb_load_bytes(skb, 0, headers, sizeof headers)) return 0;
  c->n[COUNT_packets]++;
  return 0;
}

int bench_find(struct __sk_buff *skb) {
  u32 zero = 0;
  struct counters *c = counters.lookup(&zero);
  struct bench_state *b = bench_state.lookup(&zero);
  struct flow_key key;
  u8 headers[40];
  if (!c || !b || bpf_skb_load_bytes(skb, 0, headers, sizeof headers)) return 0;
  c->n[COUNT_packets]++;
  key = b->key;
  struct flow *f = flows.lookup(&key);
  if (f) c->n[COUNT_opaque]++;
  return 0;
}
