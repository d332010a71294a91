// The smallest program that leads to `packet`. Linux before 6.7 charges a filter's instructions to the socket and allows 20 KiB by default
// (net.core.optmem_max), which `packet` exceeds; there this one is attached instead.
int gate(struct __sk_buff *skb) {
  programs.call(skb, PROGRAM_packet);
  return 0;
}
