// The messages for a model, made of a session's events alone (docs/events.md).
//
// What was sent once stays as it was: messages of a later request begin with those of the one before, byte for byte, so that
// providers' caches hit. For that `answered` says up to which event the model had been told (`told`): what people said meanwhile
// comes after that answer, not before it.
#pragma once

#include "base/error.hh"
#include "daemon/llm/provider.hh"
#include "store/sessions.hh"

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace torpor::agent {

class Context {
  public:
    // All events of the session, in order.
    void add(const store::Event& event);

    // `load` gives the bytes of an image by its hash; one that it cannot give is told to the model as a line of text.
    using Load = std::function<Result<std::string>(const std::string& hash)>;
    std::vector<llm::Message> messages(const Load& load) const;

  private:
    struct Said {
        int64_t seq;
        llm::Block block;
    };
    struct Answering {
        int64_t turn = 0, answer = 0;
        std::map<int64_t, llm::Block> blocks;  // by their place
    };

    void say(int64_t seq, std::string text);
    void begin_turn(const store::Event& event);
    void take_block(const store::Event& event);
    void end_answer(const store::Event& event);
    // The results of the last answer's calls, and what was said up to there.
    llm::Message pending(int64_t up_to) const;

    std::vector<llm::Message> messages_;           // ends with an answer, or is empty; images have a hash for bytes
    std::map<int64_t, std::vector<Said>> waiting_;  // prompts whose turns have not begun
    std::vector<std::string> calls_;               // of the last message
    std::map<std::string, llm::Block> results_;    // of those
    std::vector<Said> said_;                       // since
    Answering answering_;
    bool was_interrupted_ = false;                 // the last turn
};

}  // namespace torpor::agent
