//! fastai's Adam: decoupled weight decay, scheduled momentum, moments that can be saved.
//!
//! `p <- p (1 - lr wd)`, `a <- m a + (1 - m) g`, `s <- b s + (1 - b) g^2`,
//! `p <- p - lr / (1 - m^t) a / (sqrt(s / (1 - b^t)) + eps)` with the lr and m of the step.

use tch::{Kind, TchError, Tensor, no_grad};

use super::schedule::StepRates;
use crate::aten::{AdamStep, AdamTensors, AtenError, fused_adamw};
use crate::models::{Parameter, Role};

/// Decay of the squared average.
const BETA2: f64 = 0.99;
const EPS: f64 = 1e-5;

/// The optimiser's state for a fixed list of parameters.
#[derive(Debug)]
pub struct Adam {
    weight_decay: f64,
    moments: Vec<Moments>,
    /// Steps since the state was last cleared.
    steps: u64,
}

/// Both moving averages of one parameter, shaped and laid out like it.
#[derive(Debug)]
struct Moments {
    average: Tensor,
    square: Tensor,
}

impl Adam {
    /// A fresh optimiser for `parameters`, in their order; fastai's decay is 0.01.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn new(parameters: &[Parameter], weight_decay: f64) -> Result<Self, TchError> {
        let moments = parameters.iter().map(|parameter| {
            let zeros = || parameter.tensor.detach().f_zeros_like();
            Ok(Moments { average: zeros()?, square: zeros()? })
        });
        Ok(Self { weight_decay, moments: moments.collect::<Result<_, TchError>>()?, steps: 0 })
    }

    /// Clears the moments and the number of steps, as fastai does when it unfreezes.
    pub fn clear(&mut self) {
        self.steps = 0;
        for Moments { average, square } in &mut self.moments {
            let _ = average.zero_();
            let _ = square.zero_();
        }
    }

    /// One step over every parameter that has a gradient, at its group's learning rate.
    ///
    /// # Errors
    /// When a gradient does not fit its parameter, or memory runs out.
    pub fn step(&mut self, parameters: &[Parameter], rates: &StepRates) -> Result<(), AtenError> {
        self.steps += 1;
        for (group, &learning_rate) in rates.learning_rates.iter().enumerate() {
            for (role, weight_decay) in [(Role::Weight, self.weight_decay), (Role::Norm, 0.0)] {
                let tensors = self.collect(parameters, |parameter| parameter.group == group && parameter.role == role);
                let step = AdamStep { learning_rate, beta1: rates.momentum, beta2: BETA2, weight_decay, eps: EPS };
                fused_adamw(&tensors, step)?;
            }
        }
        Ok(())
    }

    fn collect(&self, parameters: &[Parameter], wanted: impl Fn(&Parameter) -> bool) -> AdamTensors {
        let mut tensors = AdamTensors::default();
        let Some(first) = parameters.first() else { return tensors };
        let step = Tensor::full([], self.steps as f64, (Kind::Float, first.tensor.device()));
        for (parameter, moments) in parameters.iter().zip(&self.moments) {
            let gradient = parameter.tensor.grad();
            if !wanted(parameter) || !parameter.tensor.requires_grad() || !gradient.defined() {
                continue;
            }
            tensors.steps.push(step.shallow_clone());
            tensors.parameters.push(parameter.tensor.shallow_clone());
            tensors.gradients.push(gradient);
            tensors.averages.push(moments.average.shallow_clone());
            tensors.squares.push(moments.square.shallow_clone());
        }
        tensors
    }

    /// Steps since the state was last cleared.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Continues after `steps` steps, with moments restored through [`Self::state`].
    pub fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }

    /// Both moments of every parameter, under `average.<name>` and `square.<name>`.
    pub fn state(&self, parameters: &[Parameter]) -> Vec<(String, Tensor)> {
        let named = parameters.iter().zip(&self.moments).flat_map(|(parameter, moments)| {
            let name = &parameter.name;
            [
                (format!("average.{name}"), moments.average.shallow_clone()),
                (format!("square.{name}"), moments.square.shallow_clone()),
            ]
        });
        named.collect()
    }
}

/// Drops all gradients.
pub fn zero_gradients(parameters: &[Parameter]) {
    for parameter in parameters {
        let mut gradient = parameter.tensor.grad();
        if gradient.defined() {
            no_grad(|| drop(gradient.zero_()));
        }
    }
}
