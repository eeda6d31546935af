// Tools for models whose template knows none: they are offered in the prompt, and the answer is held to a JSON Schema that
// has two forms, {"say": TEXT} and {"tool": NAME, "input": {...}}. A call that was made already, and answered, is not made again:
// then the model is asked for words. For the session it is an answer like any other.
#pragma once

#include "daemon/llm/provider.hh"

#include <memory>
#include <string>

namespace torpor::llm {

class AnyModel final : public Provider {
  public:
    explicit AnyModel(std::shared_ptr<Provider> provider) : provider_(std::move(provider)) {}
    Result<Answer> ask(const Request& request, Listener& listener, std::stop_token stop) override;
    Result<Count> count(const Request& request, std::stop_token stop) override;

  private:
    const std::shared_ptr<Provider> provider_;
};

// The request without tools that asks for the same; `may_call` false: for words only.
Request without_tools(const Request& request, bool may_call);

}  // namespace torpor::llm
