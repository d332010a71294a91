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
