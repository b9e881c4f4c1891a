# Prints the forward declarations of all classes and enumerations directly in guild::v1, without default arguments
# (a default may stand once only, and it stands with the definition).
/^(inline )?namespace / { depth++; scope[depth] = $0; next }
/^\}  \/\/ namespace/ { depth--; next }
depth != 2 || scope[1] scope[2] != "namespace guild {inline namespace v1 {" { next }
/^template <([^<>]|<[^<>]*>)*>$/ { head = $0; next }
{
  line = $0
  if (match(line, /^template <[^<>]*> (struct|class) /)) {
    at = index(line, "> ")
    head = substr(line, 1, at)
    line = substr(line, at + 2)
  }
  if (match(line, /^(struct|class) [A-Za-z_0-9]+( final)?( \{|;$|$| :)/)) {
    split(line, word, /[ ;{:]+/)
    gsub(/ = [^,<>]*<[^<>]*>/, "", head)  # a default that has arguments
    gsub(/ = [^,>]*/, "", head)
    print (head == "" ? "" : head " ") word[1] " " word[2] ";"
  } else if (match(line, /^enum class [A-Za-z_0-9]+ : [a-z_:0-9]+/)) {
    print substr(line, 1, RLENGTH) ";"
  }
  head = ""
}
