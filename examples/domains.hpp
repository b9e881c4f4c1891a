// Four domains of text for small models whose experts are to be watched: code, worked arithmetic, English prose, and
// the beginning of a German tale (after Grimm, Der Froschkönig).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <guild/core/random.hpp>
#include <guild/io/bpe_trainer.hpp>
#include <guild/io/file.hpp>
#include <guild/training/training_batch.hpp>

#include "arithmetic.hpp"

namespace domains {

/// The last fifth of a text is to be held out.
struct Domain {
  std::string name, text;
  [[nodiscard]] std::size_t split() const {
    std::size_t at = text.size() / 5 * 4;
    while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U) ++at;  // inside a character
    return at;
  }
  [[nodiscard]] std::string_view learned() const { return std::string_view(text).substr(0, split()); }
  [[nodiscard]] std::string_view held_out() const { return std::string_view(text).substr(split()); }
};

inline constexpr std::string_view german =
    R"(In den alten Zeiten, wo das Wünschen noch geholfen hat, lebte ein König, dessen Töchter waren alle schön, aber
die jüngste war so schön, daß die Sonne selber, die doch so vieles gesehen hat, sich verwunderte, sooft sie ihr ins
Gesicht schien. Nahe bei dem Schlosse des Königs lag ein großer dunkler Wald, und in dem Walde unter einer alten Linde
war ein Brunnen: wenn nun der Tag recht heiß war, so ging das Königskind hinaus in den Wald und setzte sich an den Rand
des kühlen Brunnens; und wenn sie Langeweile hatte, so nahm sie eine goldene Kugel, warf sie in die Höhe und fing sie
wieder; und das war ihr liebstes Spielwerk.
Nun trug es sich einmal zu, daß die goldene Kugel der Königstochter nicht in ihr Händchen fiel, das sie in die Höhe
gehalten hatte, sondern vorbei auf die Erde schlug und geradezu ins Wasser hineinrollte. Die Königstochter folgte ihr
mit den Augen nach, aber die Kugel verschwand, und der Brunnen war tief, so tief, daß man keinen Grund sah. Da fing sie
an zu weinen und weinte immer lauter und konnte sich gar nicht trösten. Und wie sie so klagte, rief ihr jemand zu: Was
hast du vor, Königstochter, du schreist ja, daß sich ein Stein erbarmen möchte. Sie sah sich um, woher die Stimme käme,
da erblickte sie einen Frosch, der seinen dicken häßlichen Kopf aus dem Wasser streckte. Ach, du bist's, alter
Wasserpatscher, sagte sie, ich weine über meine goldene Kugel, die mir in den Brunnen hinabgefallen ist. Sei still und
weine nicht, antwortete der Frosch, ich kann wohl Rat schaffen, aber was gibst du mir, wenn ich dein Spielwerk wieder
heraufhole? Was du haben willst, lieber Frosch, sagte sie, meine Kleider, meine Perlen und Edelsteine, auch noch die
goldene Krone, die ich trage. Der Frosch antwortete: Deine Kleider, deine Perlen und Edelsteine und deine goldene Krone,
die mag ich nicht: aber wenn du mich liebhaben willst, und ich soll dein Geselle und Spielkamerad sein, an deinem
Tischlein neben dir sitzen, von deinem goldenen Tellerlein essen, aus deinem Becherlein trinken, in deinem Bettlein
schlafen: wenn du mir das versprichst, so will ich hinuntersteigen und dir die goldene Kugel wieder heraufholen. Ach ja,
sagte sie, ich verspreche dir alles, was du willst, wenn du mir nur die Kugel wiederbringst. Sie dachte aber: Was der
einfältige Frosch schwätzt, der sitzt im Wasser bei seinesgleichen und quakt, und kann keines Menschen Geselle sein.
Der Frosch, als er die Zusage erhalten hatte, tauchte seinen Kopf unter, sank hinab, und über ein Weilchen kam er wieder
heraufgerudert, hatte die Kugel im Maul und warf sie ins Gras. Die Königstochter war voll Freude, als sie ihr schönes
Spielwerk wieder erblickte, hob es auf und sprang damit fort. Warte, warte, rief der Frosch, nimm mich mit, ich kann
nicht so laufen wie du. Aber was half ihm, daß er ihr sein Quak, Quak so laut nachschrie, als er konnte! Sie hörte nicht
darauf, eilte nach Haus und hatte bald den armen Frosch vergessen, der wieder in seinen Brunnen hinabsteigen mußte.
Am andern Tage, als sie mit dem König und allen Hofleuten sich zur Tafel gesetzt hatte und von ihrem goldenen Tellerlein
aß, da kam, plitsch platsch, plitsch platsch, etwas die Marmortreppe heraufgekrochen, und als es oben angelangt war,
klopfte es an der Tür und rief: Königstochter, jüngste, mach mir auf. Sie lief und wollte sehen, wer draußen wäre, als
sie aber aufmachte, so saß der Frosch davor. Da warf sie die Tür hastig zu, setzte sich wieder an den Tisch, und es war
ihr ganz angst. Der König sah wohl, daß ihr das Herz gewaltig klopfte, und sprach: Mein Kind, was fürchtest du dich,
steht etwa ein Riese vor der Tür und will dich holen? Ach nein, antwortete sie, es ist kein Riese, sondern ein garstiger
Frosch.
)";

/// The files of a folder with such an ending, by name, without what stands between ```, up to so many bytes.
inline std::string text_of(const std::string& folder, std::string_view ending, std::size_t bytes) {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ending) paths.push_back(entry.path().string());
  std::sort(paths.begin(), paths.end());
  std::string all;
  for (const std::string& path : paths) {
    const std::string text = guild::read_text(path, std::size_t{1} << 24);
    bool fenced = false;
    for (std::size_t begin = 0, end = 0; begin < text.size() && all.size() < bytes; begin = end + 1) {
      end = std::min(text.find('\n', begin), text.size());
      const std::string_view line = std::string_view(text).substr(begin, end - begin);
      if (line.starts_with("```"))
        fenced = !fenced;
      else if (!fenced)
        all.append(line).append("\n");
    }
  }
  return all;
}

/// Of the repository whose root is given: code is of its modules, prose of its documentation; each of about so many
/// bytes, but for the tale of 4 kB.
inline std::vector<Domain> of_repository(const std::string& root, std::size_t bytes) {
  std::string problems;
  guild::Random random(3, 4);
  arithmetic::Dice dice(random);
  while (problems.size() < bytes) {
    const arithmetic::Problem problem = arithmetic::problem(dice);
    problems += problem.question + "\n" + problem.work + "\n" + problem.answer + "\n";
  }
  return {{"code", text_of(root + "/include/guild/modules", ".hpp", bytes)},
          {"arithmetic", problems},
          {"prose", text_of(root + "/docs", ".md", bytes)},
          {"German", std::string(german)}};
}

using Tokens = std::vector<std::int32_t>;

/// The texts as tokens, one by one.
struct Encoded {
  std::vector<Tokens> learned{}, held_out{};
  template <class Encode>
  Encoded(const std::vector<Domain>& domains, const Encode& encode) {
    for (const Domain& domain : domains) {
      learned.push_back(encode(domain.learned()));
      held_out.push_back(encode(domain.held_out()));
    }
  }
};

/// One vocabulary of all that is to be learned.
inline guild::Tokenizer make_tokenizer(const std::vector<Domain>& domains, int size) {
  guild::BpeTrainerOptions options;
  options.vocab_size = size;
  guild::BpeTrainer trainer(options);
  for (const Domain& domain : domains) trainer.add(domain.learned());
  return guild::Tokenizer::parse(guild::tokenizer_json(trainer.train()));
}

/// `length` tokens of a text with the token after each as its target.
inline void append(guild::TrainingBatch& batch, std::span<const std::int32_t> text, std::size_t begin,
                   std::size_t length) {
  batch.append(text.subspan(begin, length), text.subspan(begin + 1, length));
}

/// Windows anywhere in the texts, the same number of each.
inline guild::TrainingBatch draw(const std::vector<Tokens>& texts, guild::Random& random, std::size_t windows,
                                 std::size_t length) {
  guild::TrainingBatch batch;
  for (std::size_t i = 0; i < windows; ++i) {
    const Tokens& text = texts[i % texts.size()];
    append(batch, text, static_cast<std::size_t>(random.uniform() * static_cast<double>(text.size() - length)), length);
  }
  return batch;
}

/// Window i of `windows`, spread evenly over a text.
inline guild::TrainingBatch window(const Tokens& text, std::size_t i, std::size_t windows, std::size_t length) {
  guild::TrainingBatch batch;
  append(batch, text, i * (text.size() - length - 1) / (windows - 1), length);
  return batch;
}

}  // namespace domains
