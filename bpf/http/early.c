// A response began before its request had ended, and both are complete now. Both sides may find it so at the same time: who deletes it sends it.
int http_early(struct __sk_buff *skb) {
  u32 zero = 0;
  struct http_scratch *s = http_scratch.lookup(&zero);
  if (!s) return 0;
  s->early = 0;
  struct http_pending *p = http_pending.lookup(&s->m);
  if (p) {
    copy8(&s->out, p, sizeof *p / 8);
    if (!http_pending.delete(&s->m)) send(s, &s->out);
  }
  programs.call(skb, PROGRAM_http_stream);
  return 0;
}
