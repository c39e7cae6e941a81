//! fastai's classification head.

use tch::{TchError, Tensor};

use crate::models::layers::{BatchNorm, Builder, Linear, Mode};

const HIDDEN: i64 = 512;
const EPS: f64 = 1e-5;

/// max and average pooling -> norm -> dropout -> linear 512 -> ReLU -> norm -> dropout -> linear.
///
/// Names follow the positions in fastai's `Sequential` (2: norm, 4: linear, 6: norm, 8: linear).
#[derive(Debug)]
pub(in crate::models) struct FastaiHead {
    norm_in: BatchNorm,
    hidden: Linear,
    norm_hidden: BatchNorm,
    output: Linear,
    dropout: f64,
}

impl FastaiHead {
    /// `dropout` is the rate before the last layer; half of it applies before the first (fastai's `ps`).
    pub(in crate::models) fn new(
        builder: &mut Builder,
        features: i64,
        classes: i64,
        dropout: f64,
    ) -> Result<Self, TchError> {
        Ok(Self {
            norm_in: builder.batch_norm("2", 2 * features, EPS)?,
            hidden: builder.linear("4", 2 * features, HIDDEN)?,
            norm_hidden: builder.batch_norm("6", HIDDEN, EPS)?,
            output: builder.linear("8", HIDDEN, classes)?,
            dropout,
        })
    }

    /// `[N, features, H, W]` -> logits `[N, classes]` f32.
    pub(in crate::models) fn forward(&self, features: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        // Pooling has the precision of the weights: an average of 49 bf16 values would lose three digits for nothing.
        let features = features.f_to_kind(self.output.kind())?;
        // This is not amax: among equal maxima the gradient goes to one position, as in PyTorch's pooling layer.
        let (maxima, _) = features.f_adaptive_max_pool2d([1, 1])?;
        let means = features.f_adaptive_avg_pool2d([1, 1])?;
        self.forward_pooled(&Tensor::f_cat(&[maxima, means], 1)?.f_flatten(1, -1)?, mode)
    }

    fn forward_pooled(&self, pooled: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let train = mode == Mode::Train;
        let input = self.norm_in.forward(pooled, mode)?.f_dropout(self.dropout / 2.0, train)?;
        let hidden = self.hidden.forward(&input)?.f_relu()?;
        let hidden = self.norm_hidden.forward(&hidden, mode)?.f_dropout(self.dropout, train)?;
        self.output.forward(&hidden)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Reduction};

    use super::*;
    use crate::models::formula::uniform;

    fn set(name: &str, tensor: &Tensor) {
        let shape = tensor.size();
        let (scale, shift) = match name.rsplit('.').next() {
            Some("weight") if shape.len() == 2 => ((3.0 / shape[1] as f64).sqrt(), 0.0),
            Some("weight") => (0.1, 1.0),
            Some("running_var") => (0.2, 1.0),
            _ => (0.1, 0.0),
        };
        tch::no_grad(|| tensor.shallow_clone().copy_(&(uniform(name, &shape) * scale + shift)));
    }

    /// (norm, product with a fixed direction), as the reference stores gradients.
    fn assert_summary(name: &str, tensor: &Tensor, golden: &serde_json::Value) {
        let flat = tensor.detach().to_kind(Kind::Double).contiguous().view(-1);
        let product = flat.dot(&uniform(&format!("{name}#probe"), &flat.size())).double_value(&[]);
        let (norm, expected) = (golden[0].as_f64().unwrap(), golden[1].as_f64().unwrap());
        let off = (flat.norm().double_value(&[]) - norm).abs().max((product - expected).abs());
        assert!(off <= 1e-4 * norm + 1e-7, "{name} is off by {off:e}, norm {norm:e}");
    }

    #[test]
    fn training_mode_forward_gradient_and_statistics_are_fastais() {
        let text = include_str!("../../../tests/golden/networks.json");
        let golden = serde_json::from_str::<serde_json::Value>(text).unwrap()["head"].clone();
        let mut builder = Builder::new(Device::Cpu);
        let head = FastaiHead::new(&mut builder, 8, 3, 0.0).unwrap();
        builder.parameters.iter().for_each(|parameter| set(&parameter.name, &parameter.tensor));
        builder.buffers.iter().for_each(|buffer| set(&buffer.name, &buffer.tensor));
        let features = uniform("features", &[5, 8, 3, 3]).to_kind(Kind::Float).set_requires_grad(true);
        let logits = head.forward(&features, Mode::Train).unwrap();
        let targets = Tensor::from_slice(&[0_i64, 2, 1, 1, 0]);
        logits.cross_entropy_loss(&targets, None::<&Tensor>, Reduction::Mean, -100, 0.0).backward();
        for (row, expected) in golden["logits"].as_array().unwrap().iter().enumerate() {
            for class in 0..3 {
                let off = logits.double_value(&[row as i64, class]) - expected[class as usize].as_f64().unwrap();
                assert!(off.abs() <= 1e-4, "logit [{row}, {class}] is off by {off:e}");
            }
        }
        assert_summary("features", &features.grad(), &golden["input_gradient"]);
        for parameter in &builder.parameters {
            assert_summary(&parameter.name, &parameter.tensor.grad(), &golden["gradients"][&parameter.name]);
        }
        for buffer in &builder.buffers {
            for (i, expected) in golden["statistics"][&buffer.name].as_array().unwrap().iter().enumerate() {
                let off = buffer.tensor.double_value(&[i as i64]) - expected.as_f64().unwrap();
                assert!(off.abs() <= 1e-4, "{}[{i}] is off by {off:e}", buffer.name);
            }
        }
    }
}
