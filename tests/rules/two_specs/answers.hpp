// Both sides of the test: parameters counted by walking a model's weights, and logits of one token from zero weights.
#pragma once

#include <cstdint>
#include <vector>

std::int64_t parameters_of_first();
std::int64_t parameters_of_second();
std::vector<float> logits_of_first();
std::vector<float> logits_of_second();
