/** The programs by framework. */

import { convlabProgram } from "./python.mjs";
import { flaxProgram } from "./python_flax.mjs";
import { gluonProgram } from "./python_gluon.mjs";
import { kerasProgram } from "./python_keras.mjs";
import { torchProgram } from "./python_torch.mjs";

export const FRAMEWORKS = {
  convlab: convlabProgram, PyTorch: torchProgram, Keras: kerasProgram, Flax: flaxProgram, gluon: gluonProgram,
};

/** The Python program that computes a layer with a framework, and prints the result. */
export const program = (framework, layer) => [...FRAMEWORKS[framework](layer), "print(Y)", ""].join("\n");
