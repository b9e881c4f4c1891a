// Declares the public types of guild, for headers that only name them; written by tests/rules/update_umbrella.sh.
#pragma once

#include <guild/checkpoint/fwd.hpp>
#include <guild/core/fwd.hpp>
#include <guild/device/fwd.hpp>
#include <guild/inference/fwd.hpp>
#include <guild/io/fwd.hpp>
#include <guild/models/fwd.hpp>
#include <guild/modules/fwd.hpp>
#include <guild/ops/fwd.hpp>
#include <guild/training/fwd.hpp>
