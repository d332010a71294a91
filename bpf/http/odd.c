// What is rare in a line, byte by byte: lists of lengths, white space of any amount, folded lines, chunk sizes with many zeros.

static __always_inline u32 is_space(u8 b) { return b == ' ' || b == '\t'; }

static __always_inline void odd_chunk(struct http_scratch *s, struct http_direction *h) {
  u32 start = V(s->start);
  V(s->from) = 0;                                               // digits
  V(h->length) = 0;
#pragma clang loop unroll(disable)
  for (u32 i = 0; i < HTTP_CARRY; i++) {
    u32 at = start + i;
    if (at >= V(s->eol)) break;
    u8 b = s->b[at & HTTP_MASK], l = b | 32;
    u64 v = V(h->length);
    u32 digit = b - '0', letter = l - 'a';
    if (digit > 9 && letter > 5) {
      if (b != ';' && !is_space(b)) fail(h, HTTP_COUNT_resync_syntax);
      break;
    }
    if (v >> 54) { fail(h, HTTP_COUNT_resync_syntax); break; }
    V(h->length) = v << 4 | (digit < 10 ? digit : letter + 10);
    V(s->from) = 1;
  }
  if (!V(s->from)) fail(h, HTTP_COUNT_resync_syntax);
  V(h->phase) = CHUNK_EXTENSION;
  if (!V(s->cut)) chunk_begins(s, &s->d);
}

// RFC 9110, 8.6: a list of equal numbers is that number.
static __always_inline void odd_length(struct http_scratch *s, struct http_direction *h) {
  u32 from = V(s->from);
  if (V(s->to) - from > HTTP_CARRY) goto bad;
  V(s->id) = 0;                                                 // 0: before digits, 1: in them, 2: behind them
  V(s->nl) = 0;                                                 // something was there
  V(s->out.m.flow) = 0;                                         // the value so far
#pragma clang loop unroll(disable)
  for (u32 i = 0; i < HTTP_CARRY; i++) {
    u32 at = from + i, state = V(s->id);
    if (at >= V(s->to)) break;
    u8 b = s->b[at & HTTP_MASK];
    u64 v = V(s->out.m.flow);
    if (is_space(b)) { if (state == 1) V(s->id) = 2; continue; }
    V(s->nl) = 1;
    if (b == ',') {
      if (!state) goto bad;
      content_length(h, v);
      V(s->id) = 0;
      V(s->out.m.flow) = 0;
      continue;
    }
    u32 digit = b - '0';
    if (digit > 9 || state == 2 || v >> 58) goto bad;
    V(s->out.m.flow) = v * 10 + digit;
    V(s->id) = 1;
  }
  if (!V(s->nl)) return;
  if (V(s->id)) { content_length(h, V(s->out.m.flow)); return; }
bad:
  V(h->seen) |= CONFLICT;
}

// The last coding of the list decides (RFC 9112, 6.3).
static __always_inline void odd_coding(struct http_scratch *s, struct http_direction *h) {
  if (V(s->to) - V(s->from) > HTTP_CARRY) V(s->from) = V(s->to) - HTTP_CARRY;
  u32 from = V(s->from);
  V(s->id) = V(s->nl) = V(s->start) = 0;                        // inside a coding; its end; its start
#pragma clang loop unroll(disable)
  for (u32 i = 0; i < HTTP_CARRY; i++) {
    u32 at = from + i;
    if (at >= V(s->to)) break;
    u8 b = s->b[at & HTTP_MASK];
    if (b == ',') { V(s->id) = 0; continue; }
    if (is_space(b)) continue;
    if (!V(s->id)) { V(s->start) = at; V(s->id) = 1; }
    V(s->nl) = at + 1;
  }
  u32 start = V(s->start), end = V(s->nl), seen = V(h->seen) & ~(CHUNKED | CODED);
  if (!end) return;
  u64 v = load8(&s->b[start & HTTP_MASK]) | LOWER;
  V(h->seen) = seen | (end - start == 7 && v << 8 == W8(0, 'c', 'h', 'u', 'n', 'k', 'e', 'd') ? CHUNKED : CODED);
}

static __always_inline void odd_text(struct http_scratch *s, struct http_direction *h) {
  u32 from = V(s->from);
  V(s->nl) = V(s->start) = V(s->k) = 0;
#pragma clang loop unroll(disable)
  for (u32 i = 0; i < HTTP_CARRY; i++) {
    u32 at = from + i;
    if (at >= V(s->to)) break;
    u8 b = s->b[at & HTTP_MASK];
    if (is_space(b)) continue;
    if (!V(s->k)) { V(s->start) = at; V(s->k) = 1; }
    V(s->nl) = at + 1;
  }
  if (!V(s->k)) return;
  V(s->from) = V(s->start);
  V(s->to) = V(s->nl);
  text(s, h);
}

int http_odd(struct __sk_buff *skb) {
  u32 zero = 0;
  struct http_scratch *s = http_scratch.lookup(&zero);
  if (!s) return 0;
  struct http_direction *h = http_of(&s->d);
  u32 id = V(s->id);
  if (V(h->cause)) goto done;
  if (id == H_CHUNK) odd_chunk(s, h);
  else if (id == H_LENGTH) odd_length(s, h);
  else if (id == H_CODING) odd_coding(s, h);
  else odd_text(s, h);
done:
  V(s->id) = 0;
  programs.call(skb, PROGRAM_http_stream);
  return 0;
}
